"""Runs units in processes, several at a time; what is done stays done."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence

from rich.console import Console

from benchmarks.learning.plan import Unit
from stepcoder.errors import StepCoderError

_POLL_SECONDS = 0.2


def run_all(units: Sequence[Unit], workers: int, console: Console) -> None:
    """Runs what is not done yet, in order, each after what it needs.

    Args:
        units: in the order of their turn.
        workers: processes at a time, one thread each.
        console: where progress is told.

    Raises:
        StepCoderError: a unit failed; those at work are ended, what they have done stays.
    """
    done = {unit.name for unit in units if unit.done}
    waiting = deque(unit for unit in units if unit.name not in done)
    if done:
        console.print(f"{len(done)} of {len(units)} units are done already", highlight=False)
    running: dict[str, tuple[Unit, subprocess.Popen[bytes]]] = {}
    began, finished = time.monotonic(), 0
    total = len(waiting)
    try:
        while waiting or running:
            for _ in range(len(waiting)):
                unit = waiting.popleft()
                if len(running) < workers and done.issuperset(unit.needs):
                    running[unit.name] = (unit, start(unit))
                else:
                    waiting.append(unit)
            time.sleep(_POLL_SECONDS)
            for name, (unit, process) in list(running.items()):
                status = process.poll()
                if status is None:
                    continue
                del running[name]
                if status != 0 or not unit.done:
                    raise StepCoderError(f"{name} failed with status {status}; see {unit.folder / 'log'}\n{tail(unit)}")
                done.add(name)
                finished += 1
                left = seconds_left(units, workers)
                console.print(
                    f"{name}: {unit.record['seconds']:.0f} s, pass@1 {100 * pass_at_1(unit):.1f} %; "
                    f"{finished} of {total}, {(time.monotonic() - began) / 60:.1f} min"
                    + ("" if left is None else f", about {left / 60:.0f} min left"),
                    highlight=False,
                )
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()


def start(unit: Unit) -> subprocess.Popen[bytes]:
    """Starts a unit's process; its output goes to `log` in its folder."""
    spec = unit.write()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with (unit.folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.learning.unit", str(spec)],
            # Nothing is written: its end tells the process that this one is gone.
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def seconds_left(units: Sequence[Unit], workers: int) -> float | None:
    """What is not done, if each unit takes what those of its kind took; None before one of a kind is done."""
    took: dict[bool, list[float]] = {}
    for unit in units:
        if unit.done:
            took.setdefault(unit.variant == "sft", []).append(unit.record["seconds"])
    kinds = [unit.variant == "sft" for unit in units if not unit.done]
    if not took.keys() >= set(kinds):
        return None
    each = [sum(took[kind]) / len(took[kind]) for kind in kinds]
    return max(sum(each) / workers, *each) if each else 0.0


def pass_at_1(unit: Unit) -> float:
    """What a unit ends with, on the problems that it has measured."""
    rows = unit.record["problems"]
    rates = [row["passed"] / row["samples"] for row in rows if row["samples"]]
    return sum(rates) / len(rates) if rates else 0.0


def tail(unit: Unit) -> str:
    """The last lines of a unit's log."""
    return "\n".join((unit.folder / "log").read_text(errors="replace").splitlines()[-8:])
