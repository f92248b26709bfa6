"""Real servers for tests, on loopback, from an environment of their own that `make servers` makes.

Each module starts one as a context manager, with its data below a folder that is given, and stops it at the end.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

MISSING = "no environment with the servers: run `make servers`, or name one by STEPCODER_SERVERS_VENV"
_REPOSITORY = Path(__file__).resolve().parents[2]


def program(name: str) -> Path | None:
    """A program of the servers' environment, or None where it is not installed."""
    home = Path(os.environ.get("STEPCODER_SERVERS_VENV") or _REPOSITORY / ".venv-servers")
    path = home.absolute() / "bin" / name
    return path if path.exists() else None


def free_ports(count: int) -> list[int]:
    """So many different ports of loopback that nothing listens on."""
    with ExitStack() as held:  # Until all are known: a port that is given back may be given again.
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def listening(port: int) -> bool:
    """Whether something accepts connections at a port of loopback."""
    with socket.socket() as connection:
        connection.settimeout(5)
        return connection.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(
    commands: Mapping[str, Sequence[str]], ready: Callable[[], bool], logs: Path, *, seconds: float = 60
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Runs servers until the block ends; they end also when this process is killed.

    Args:
        commands: name and command line of each.
        ready: whether they answer; called until they do.
        logs: folder for what they write, one file each.
        seconds: how long they may take to answer.

    Raises:
        RuntimeError: one has ended, or they do not answer in time; with the end of their logs.
    """
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            with (logs / f"{name}.log").open("ab") as log:
                processes[name] = subprocess.Popen(
                    # By a program of its own: a fork of a process that has trained fails for want of memory.
                    ["setpriv", "--pdeathsig", "KILL", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
        end = time.monotonic() + seconds
        while not ready():
            ended = [name for name, process in processes.items() if process.poll() is not None]
            if ended or time.monotonic() > end:
                tails = "\n".join(f"{name}: {(logs / f'{name}.log').read_text()[-2000:]}" for name in processes)
                raise RuntimeError(f"servers do not answer; ended: {', '.join(ended) or 'none'}\n{tails}")
            time.sleep(0.05)
        yield processes
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
