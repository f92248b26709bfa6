"""What both sides' processes share: the pipe to the parent, and memory. Imports nothing but the standard library."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


class Pipe:
    """JSON lines from and to the parent. Whatever libraries print goes to the standard error."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def receive(self) -> dict[str, Any] | None:
        """The next order; `None` at the end."""
        line = sys.stdin.readline()
        return json.loads(line) if line else None

    def send(self, answer: dict[str, Any]) -> None:
        """Answers an order."""
        self._out.write(json.dumps(answer) + "\n")
        self._out.flush()


def memory(field: str) -> float:
    """A field of this process's status in MiB: `VmRSS`, or its highest value `VmHWM`."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field + ":"))


class Step:
    """Clock and memory of one step, phase by phase.

    CPU time is what sides are compared by: each side is one thread that never waits, and other people's work on the
    same cores lengthens the wall clock of whoever it meets.
    """

    def __init__(self, idle: float) -> None:
        """Starts the clock.

        Args:
            idle: MiB that the process held before its first step.
        """
        with open("/proc/self/clear_refs", "w") as refs:
            refs.write("5")  # VmHWM starts anew
        self._idle, self._resident = idle, memory("VmRSS")
        self._phases: dict[str, float] = {}
        self._begin = time.perf_counter()
        self._cpu_begin = self._mark = time.process_time()

    def ends(self, phase: str) -> None:
        """What ran since the phase before belongs to this one."""
        now = time.process_time()
        self._phases[phase] = now - self._mark
        self._mark = now

    def answer(self, tokens: int) -> dict[str, Any]:
        """The step's figures, phases in CPU seconds.

        `peak_mib` is over what the process held before its first step: what a step leaves to the next one (logits,
        the allocator's store) would otherwise count as no memory at all.
        """
        highest = memory("VmHWM")
        return {
            "seconds": time.perf_counter() - self._begin,
            "cpu_seconds": self._mark - self._cpu_begin,
            "phases": self._phases,
            "tokens": tokens,
            "peak_mib": highest - self._idle,
            "peak_over_begin_of_step_mib": highest - self._resident,
        }
