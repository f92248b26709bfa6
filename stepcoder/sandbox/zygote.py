"""The judge's handle on a zygote: started by exec, it seals itself, forks and reaps children."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import stepcoder
from stepcoder.sandbox.children import Child
from stepcoder.sandbox.inside import zygote

START_SECONDS = 60.0
REPLY_SECONDS = 15.0
END_SECONDS = 2.0
FORK_TRIALS, FORK_SECONDS = 20, 0.05

ENVIRONMENT = {
    "LD_BIND_NOW": "1",  # else each child looks up the same symbols
    "LC_ALL": "C.UTF-8",
    "MALLOC_ARENA_MAX": "1",  # else each thread reserves 64 MiB of the address space
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TZ": "UTC",
}
"""All that a zygote is started with: constants, nothing of the trainer's environment."""


class ZygoteError(Exception):
    """The judge's own process is gone or does not answer: a fault of the judge, never of the program's verdict."""


class NoRoomError(ZygoteError):
    """The machine, or the container, has no room for another process."""


class Zygote:
    """One zygote process."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Starts the process and waits until it is sealed.

        Args:
            settings: see `layers.settings`.

        Raises:
            ZygoteError: it does not start.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        self._errors = os.memfd_create("zygote-errors")
        # A Python that was built with shared libraries in an odd place does not start without this one.
        inherited = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        try:
            self._process = subprocess.Popen(
                # -S and -s: no site packages but those named here; -P: no folder of the script on the path.
                [
                    *(sys.executable, "-S", "-s", "-P", "-W", "ignore", "-X", "utf8", zygote.__file__),
                    *(str(theirs.fileno()), str(Path(stepcoder.__file__).parent)),
                ],
                env=ENVIRONMENT | inherited,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        finally:
            theirs.close()
        self._control.settimeout(START_SECONDS)
        try:
            self._control.send(json.dumps(settings).encode())
            self.address_space: int = zygote.READY.unpack(self._reply(zygote.READY.size))[0]
        except (OSError, ZygoteError) as error:
            self.kill()
            raise ZygoteError(f"the zygote does not start: {error}") from error
        self._control.settimeout(REPLY_SECONDS)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def fork(self, stdin: int, stdout: int, probes: int) -> Child:
        """A new child on these descriptors, which stay the caller's.

        Args:
            stdin: its standard input.
            stdout: its standard output.
            probes: its memory for executed statements.

        Raises:
            NoRoomError: there is no room for another process.
            ZygoteError: the zygote does not answer.
        """
        ours, theirs = socket.socketpair()
        # What programs say on standard error is nobody's business. Opened anew: flags of a file that is open, which a
        # program can set, are shared by all who have it from one opening.
        nowhere = os.open(os.devnull, os.O_RDWR)
        try:
            for _ in range(FORK_TRIALS):
                request = zygote.REQUEST.pack(zygote.FORK, 0)
                socket.send_fds(self._control, [request], [theirs.fileno(), stdin, stdout, nowhere, probes])
                (pid,) = zygote.FORKED.unpack(self._reply(zygote.FORKED.size))
                if pid > 0:
                    return Child(pid, ours)
                # Some program has taken all the processes there are; its own judge ends it soon.
                time.sleep(FORK_SECONDS)
            raise NoRoomError("there is no room for another process")
        except (OSError, ZygoteError) as error:
            ours.close()
            if isinstance(error, NoRoomError):
                raise
            raise ZygoteError(f"the zygote does not fork: {error}") from error
        finally:
            theirs.close()
            os.close(nowhere)

    def reap(self, child: Child) -> tuple[int, float]:
        """Ends a child and all it started.

        Returns:
            The wait status and the CPU seconds of the child and its descendants that were waited for.

        Raises:
            ZygoteError: the zygote does not answer.
        """
        try:
            self._control.send(zygote.REQUEST.pack(zygote.REAP, child.pid))
            status, seconds = zygote.REAPED.unpack(self._reply(zygote.REAPED.size))
        except OSError as error:
            raise ZygoteError(f"the zygote does not reap: {error}") from error
        return status, seconds

    def kill(self) -> None:
        """Ends the zygote and its children. Can be called twice."""
        if self._errors < 0:
            return
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # it ends its children when the judge hangs up
        try:
            self._process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._control.close()
        os.close(self._errors)
        self._errors = -1

    def _reply(self, size: int) -> bytes:
        try:
            message = self._control.recv(size)
        except OSError as error:
            message, why = b"", f": {error}"
        else:
            why = ""
        if len(message) != size:
            errors = os.pread(self._errors, 2000, 0).decode(errors="replace").strip() if self._errors >= 0 else ""
            raise ZygoteError(f"the zygote hung up{why}{': ' if errors else ''}{errors}")
        return message
