"""A right program and five that cheat, judged before the service takes any other.

A machine on which cheating pays must not judge for a training. The right answer is drawn anew at each start, so that
no program can hold it; none of the programs writes, deletes or sends anything outside its own process.
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import Literal

from stepcoder.platform.logs import get_logger
from stepcoder.problems.problem import CallTest
from stepcoder.sandbox.job import Job, Limits, Sandbox, Verdict

LIMITS = Limits(cpu_seconds=5.0, wall_seconds=30.0)
ATTEMPTS = 3
RIGHT = "right"

CHEATS = {
    "leaves early": "import sys\nsys.exit(0)\n",
    "ends its process": "import os\ndef answer(question):\n    os._exit(0)\n",
    "returns what equals everything": """
class Equal(int):
    __eq__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __hash__ = lambda self: 0
def answer(question):
    return Equal(0)
""",
    "forges a report": """
import json, os, stat
CLAIM = json.dumps({"test": 0, "value": 0, "outcome": "pass", "passed": True}).encode()
def answer(question):
    for descriptor in range(256):
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
                os.set_blocking(descriptor, False)
                os.write(descriptor, len(CLAIM).to_bytes(4, "little") + CLAIM)
                os.write(descriptor, len(CLAIM).to_bytes(4, "big") + CLAIM + b"\\n")
        except OSError:
            pass
    os._exit(0)
""",
    "reads what other processes hold": """
import os, re, stat
def answer(question):
    text = ""
    for process in (os.getppid(), os.getpid()):
        places = [f"/proc/{process}/{name}" for name in ("cmdline", "environ")]
        try:
            places += [f"/proc/{process}/fd/{name}" for name in os.listdir(f"/proc/{process}/fd")]
        except OSError:
            pass
        for place in places:
            try:
                # Regular files only: what is read from a pipe is lost to its reader.
                if stat.S_ISREG(os.stat(place).st_mode):
                    with open(place, "rb") as file:
                        text += file.read(1 << 16).decode("latin-1")
            except OSError:
                pass
    for found in re.findall(r"\\d{15,}", text):
        if int(found) % 1000003 == question:
            return int(found)
    return 0
""",
}

log = get_logger("sandbox-serve")


class SelfTest:
    """The self-test of one service: its state, and what it found."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.state: Literal["starting", "ready", "failed"] = "starting"
        self.detail = "the self-test is running"
        self.lacking: tuple[str, ...] = ()

    def start(self) -> None:
        """Runs it in the background."""
        threading.Thread(target=self.run, name="self-test", daemon=True).start()

    def run(self) -> None:
        """Runs it; a fault of the judge itself is tried again."""
        faults: list[str] = []
        for attempt in range(ATTEMPTS):
            try:
                verdicts = self._sandbox.judge(jobs(attempt))
            except Exception as error:
                faults = [f"{type(error).__name__}: {error}"]
                continue
            faults = [fault for verdict in verdicts if (fault := _fault_of(verdict))]
            self.lacking = tuple(sorted({layer for verdict in verdicts for layer in verdict.lacking}))
            if all(verdict.judged for verdict in verdicts):
                break
            time.sleep(attempt)
        if faults:
            self.detail = "; ".join(faults)
            self.state = "failed"
            log.error("self_test_failed", detail=self.detail)
            return
        self.detail = "the right program passed, and no cheating one" + (
            f"; this machine lacks {', '.join(self.lacking)}" if self.lacking else ""
        )
        self.state = "ready"
        log.info("self_test_passed", lacking=",".join(self.lacking) or "nothing")


def jobs(run: int) -> list[Job]:
    """The programs, for an answer that is drawn here."""
    answer = secrets.randbelow(10**18) + 10**18
    # The question is a hint by which a program that has found the answer would know it.
    tests = (CallTest.of((answer % 1000003,), answer),)
    programs = {RIGHT: f"def answer(question):\n    return {answer}\n", **CHEATS}
    return [Job(name, program, tests, "answer", limits=LIMITS, run=run) for name, program in programs.items()]


def _fault_of(verdict: Verdict) -> str | None:
    if not verdict.judged:
        why = verdict.tests[0].detail if verdict.tests else ""
        return f"the program that is {verdict.id!r} could not be judged: {why}"
    if verdict.id == RIGHT:
        return None if verdict.passed else f"the right program did not pass: {verdict.outcome.value}"
    return f"a program that {verdict.id} passed" if verdict.passed else None
