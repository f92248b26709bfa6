"""What the sandbox service costs beyond the local pool, in CPU time a program; or how it bears a long full load.

The service runs on this machine. A round judges the same new programs in batches by the local pool and by the service,
one after the other and in turns first, on one core; CPU time is that of this process, the service and all their
children. Figures are medians over rounds, ratios medians of each round's ratio. JSON comes out.

    python -m benchmarks.sandbox_service [--batch 64] [--batches 4] [--rounds 9] [--uds]
    python -m benchmarks.sandbox_service --soak 300
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.sandbox import PROGRAM, TESTS
from stepcoder.sandbox import Job, Outcome, Sandbox, Verdict, open_sandbox

IN_FLIGHT = 512
LOOK_SECONDS = 1.0
WARM_UP = 0.2
"""Share of a soak after which memory counts: the stores of verdicts and tests are filling before."""


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        with suppress(OSError):
            for task in Path(f"/proc/{found[-1]}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process, of all below it, and of those that they waited for."""
    ticks = 0
    for member in family(pid):
        with suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    """Memory of one process, its share of shared pages included."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)[0]) / 1024


@contextmanager
def service(slots: int, uds: bool) -> Iterator[tuple[int, str]]:
    """A service of its own: its process id and its address."""
    with tempfile.TemporaryDirectory() as folder:
        where = ["--uds", f"{folder}/s"] if uds else ["--port", "0"]
        command = [sys.executable, "-m", "stepcoder.cli", "sandbox", "serve", *where, "--slots", str(slots)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"address=(\S+)", line)
            if found is None:
                raise SystemExit(f"the service does not start: {line}{process.stderr.read()}")
            yield process.pid, found[1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def jobs(numbers: range) -> list[Job]:
    """Programs that nobody has judged before."""
    return [Job(str(n), PROGRAM.format(number=n), TESTS, "frequent_word") for n in numbers]


def judged(sandbox: Sandbox, numbers: range, batch: int) -> None:
    """Judges distinct programs in batches; all must pass."""
    for start in range(numbers.start, numbers.stop, batch):
        if not all(verdict.passed for verdict in sandbox.judge(jobs(range(start, start + batch)))):
            raise SystemExit("a right program did not pass")


def overhead(options: argparse.Namespace) -> dict[str, Any]:
    """CPU time a program by the service and by the local pool, paired."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    size = options.batch * options.batches
    rounds: list[dict[str, float]] = []
    with service(1, options.uds) as (pid, address), open_sandbox("local", 1) as pool, open_sandbox(address) as remote:
        sides = {"local": pool, "service": remote}
        for sandbox in sides.values():
            judged(sandbox, range(-2 * options.batch, 0), options.batch)
        for number in range(options.rounds):
            block = range(number * size, (number + 1) * size)
            figures: dict[str, float] = {}
            for name in sorted(sides, reverse=bool(number % 2)):
                before, wall = cpu_seconds(os.getpid()), time.monotonic()
                judged(sides[name], block, options.batch)
                figures[name] = (cpu_seconds(os.getpid()) - before) / size
                figures[f"{name}_wall"] = (time.monotonic() - wall) / size
            rounds.append(figures)
        assert pid in family(os.getpid())
    os.sched_setaffinity(0, cores)
    ratios = [r["service"] / r["local"] for r in rounds]
    return {
        "service_over_local": round(statistics.median(ratios), 3),
        "service_over_local_lowest_highest": [round(min(ratios), 3), round(max(ratios), 3)],
        "service_over_local_wall": round(statistics.median(r["service_wall"] / r["local_wall"] for r in rounds), 3),
        "milliseconds_a_program": {
            name: round(1000 * statistics.median(r[name] for r in rounds), 3)
            for name in ("local", "service", "local_wall", "service_wall")
        },
        "settings": {
            "batch": options.batch,
            "batches": options.batches,
            "rounds": options.rounds,
            "tests": len(TESTS),
            "transport": "unix" if options.uds else "tcp",
        },
    }


def soak(options: argparse.Namespace) -> dict[str, Any]:
    """Full load for a time: what is lost, and whether the service grows."""
    slots = len(os.sched_getaffinity(0))
    outcomes: Counter[str] = Counter()
    samples: list[tuple[float, float]] = []
    lost = sent = 0
    with service(slots, options.uds) as (pid, address), open_sandbox(address) as sandbox:
        started = looked = time.monotonic()
        waiting: deque[tuple[str, Future[Verdict]]] = deque()

        def take() -> int:
            name, future = waiting.popleft()
            verdict = future.result(timeout=300)
            outcomes[verdict.outcome.value] += 1
            right = Outcome.PASS if int(name) % 2 == 0 else Outcome.WRONG_ANSWER
            return int(verdict.id != name or verdict.outcome is not right)

        while time.monotonic() - started < options.soak:
            job = jobs(range(sent, sent + 1))[0]
            if sent % 2:  # every second program is wrong
                job = Job(job.id, job.program.replace("[best, counts", "[best, 1 + counts"), TESTS, job.entry_point)
            waiting.append((job.id, sandbox.submit(job)))
            sent += 1
            if len(waiting) >= IN_FLIGHT:
                lost += take()
            if time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                samples.append((looked - started, memory_mib(pid)))
        while waiting:
            lost += take()
        seconds = time.monotonic() - started
    steady = [memory for when, memory in samples if when >= WARM_UP * options.soak]
    tenth = max(len(steady) // 10, 1)
    return {
        "seconds": round(seconds, 1),
        "programs": sent,
        "programs_a_second": round(sent / seconds, 1),
        "lost_or_wrong": lost,
        "outcomes": dict(outcomes),
        "service_mib": {
            "first": round(samples[0][1], 1),
            "start_of_steady_load": round(statistics.median(steady[:tenth]), 1),
            "end": round(statistics.median(steady[-tenth:]), 1),
            "by_tenths": [
                round(statistics.median(m for w, m in samples if part <= 10 * w / options.soak < part + 1), 1)
                for part in range(10)
            ],
            "highest": round(max(memory for _, memory in samples), 1),
        },
        "settings": {"slots": slots, "in_flight": IN_FLIGHT, "transport": "unix" if options.uds else "tcp"},
    }


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64, help="programs judged together")
    parser.add_argument("--batches", type=int, default=4, help="batches in each round, a side")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--uds", action="store_true", help="over a Unix socket instead of TCP")
    parser.add_argument("--soak", type=float, help="seconds of full load instead")
    options = parser.parse_args()
    report = soak(options) if options.soak else overhead(options)
    report["machine"] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
