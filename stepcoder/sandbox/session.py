"""One child in use: what is sent to it, what it claims, and how it ended.

Everything that comes from a child after its program started is a claim of the program's: it is checked for form here,
and whoever sends more than was asked for is told apart.
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from stepcoder.sandbox.children import MOST_THREADS, Child, EndedError, memory_file, signal_name
from stepcoder.sandbox.compiler import Compiled
from stepcoder.sandbox.inside import faults, frames
from stepcoder.sandbox.job import Job, Outcome, TestResult
from stepcoder.sandbox.zygote import Zygote, ZygoteError

MODULE_NAME = "solution"
TAIL_BYTES = 1000
SLACK_BYTES = 1 << 16
"""A claim may be longer than its value by so much."""
MOST_LINES = 1 << 31
ASKED_BYTES = 64 << 20
"""The longest arguments of a call by a check."""


class UnjudgeableError(Exception):
    """The dataset is at fault: the preamble does not compile or run."""


@dataclass(frozen=True)
class Program:
    """A job's program, ready for any number of children."""

    preamble: Compiled | None
    compiled: Compiled
    reached: bytearray
    """A byte for each probe, not 0 once one of the children that have ended has met it."""


class Session:
    """A child from its fork to its end. Used as a context manager: afterwards `output` and `status` are final."""

    def __init__(self, zygote: Zygote, job: Job, program: Program, mode: str, stdin: bytes = b"") -> None:
        self._zygote = zygote
        self._job = job
        self._program = program
        self._mode = mode
        self._stdin = memory_file(stdin)
        self._stdout = memory_file()
        # Of its own: what a child leaves there must not tell another one anything.
        self._probes = memory_file(size=program.compiled.probes)
        self.ended: str | None = None
        """Why no claim came: `exit`, `cpu`, `wall`, `threads`, `memory`, `flood`, `malformed` or `surplus`."""
        self.status = 0
        """The wait status."""
        self.cpu_seconds = 0.0
        self.output: bytes | None = None
        """All of standard output, up to one byte over the limit; None before the end."""

    def __enter__(self) -> Self:
        try:
            self._child: Child = self._zygote.fork(self._stdin, self._stdout, self._probes)
        except ZygoteError:
            self._close_files()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.status, seconds = self._zygote.reap(self._child)
            if self.ended is not None and self._mode == "stdin":
                self.cpu_seconds = seconds
            if self.ended is None and self._child.has_more():
                self.ended = "surplus"
            self.output = os.pread(self._stdout, self._job.limits.output_bytes + 1, 0)
            self._note_reached()
        finally:
            self._child.close()
            self._close_files()

    def start(self, *messages: bytes) -> None:
        """Sends the program, and `messages` after it; the limits of the first test count from here.

        Raises:
            UnjudgeableError: the preamble raises, or does not come to its end.
            ZygoteError: the child ended by itself before the program began.
        """
        compiled, preamble, limits = self._program.compiled, self._program.preamble, self._job.limits
        job = {
            "entry_point": self._job.entry_point,
            "mode": self._mode,
            "name": "__main__" if self._mode == "stdin" else MODULE_NAME,
            "probes": compiled.probes,
            "calls_itself": compiled.calls_itself,
            "preamble": preamble is not None,
            "seed": self._job.run if "random" in self._job.preamble + self._job.program else None,
            "memory": limits.memory_mib << 20,
            "output": limits.output_bytes,
            "cpu": int(limits.cpu_seconds * (len(self._job.tests) + 2)) + 1,
        }
        parts = [frames.pack(frames.JOB, json.dumps(job).encode())]
        if preamble is not None:
            parts.append(frames.pack(frames.CODE, preamble.code))
        self._child.send(*parts, frames.pack(frames.CODE, compiled.code), *messages)
        try:
            kind, payload = self._child.receive(limits.cpu_seconds, limits.wall_seconds, SLACK_BYTES)
        except EndedError as end:
            if end.cause == "exit":
                raise ZygoteError("a child ended before the program began") from end
            raise UnjudgeableError(f"the preamble takes more than {limits.cpu_seconds:g} s") from end
        if kind == frames.TOO_LARGE:
            self.ended = "memory"
            return
        if kind == frames.BROKEN:
            raise UnjudgeableError(f"the preamble fails: {json.loads(payload)['exception']}")
        self._child.mark(float(payload))

    def ask(self, message: bytes) -> None:
        """Sends one test, or one call of a check; its limits count from here."""
        os.ftruncate(self._stdout, 0)
        os.lseek(self._stdout, 0, os.SEEK_SET)  # the child writes at the same offset
        self._child.mark()
        self._child.send(message)

    def answer(self, message: bytes) -> None:
        """Sends a check what its call gave; its CPU time goes on counting, waiting does not."""
        self._child.mark_wall()
        self._child.send(message)

    def loaded(self) -> dict[str, Any] | None:
        """What the module level showed: empty, or what it raised; None if it did not come to its end."""
        message = self._receive()
        return None if message is None else self._checked(*message, frames.LOADED, None)

    def claim(self, index: int, spent: float = 0.0, spent_wall: float = 0.0, sent: int = 0) -> dict[str, Any] | None:
        """What the program claims for one test; None if no claim of that form came.

        Args:
            index: the test's number.
            spent: CPU seconds of this test's limit that are used up already.
            spent_wall: the same of its wall-clock limit.
            sent: bytes of arguments that come back with the value.
        """
        message = self._receive(spent, spent_wall, self._job.limits.output_bytes + sent)
        claim = None if message is None else self._checked(*message, frames.CLAIM, index)
        if claim is not None and self._child.has_more():
            self.ended = "surplus"
            return None
        return claim

    def crowded(self) -> bool:
        """Whether the program has too many threads, which ends it."""
        if self._child.crowded():
            self.ended = "threads"
        return self.ended == "threads"

    def asked(self) -> tuple[bytes, dict[str, Any]] | None:
        """What a check says next: `ASK` with a call's arguments, or its `CLAIM`; None if it ended otherwise."""
        message = self._receive(most=ASKED_BYTES)
        if message is None:
            return None
        kind, payload = message
        data: dict[str, Any] = json.loads(payload)
        return kind, data

    def result(self, outcome: Outcome, claim: dict[str, Any] | None = None, detail: str = "") -> TestResult:
        """A test's result, with what this child showed."""
        claim = claim or {}
        return TestResult(
            outcome,
            exception=claim.get("exception"),
            line=claim.get("line"),
            cpu_seconds=self.cpu_seconds,
            stdout_tail=self._tail(),
            detail=detail,
        )

    def raised(self, claim: dict[str, Any]) -> TestResult:
        """The result when the program raised."""
        return self.result(Outcome.MEMORY if claim.get("memory") else Outcome.RUNTIME_ERROR, claim)

    def silent(self) -> TestResult:
        """The result when the program gave no answer: to be asked after the end."""
        outcome, detail = self._silence()
        return self.result(outcome, detail=detail)

    def _tail(self) -> str:
        """The end of what the program has printed since the last test was sent."""
        output = self.output
        if output is None:
            size = os.fstat(self._stdout).st_size
            output = os.pread(self._stdout, TAIL_BYTES, max(0, size - TAIL_BYTES)) if size else b""
        return output[-TAIL_BYTES:].decode(errors="replace")

    def _silence(self) -> tuple[Outcome, str]:
        limits = self._job.limits
        match self.ended:
            case "cpu":
                return Outcome.TIMEOUT, f"more than {limits.cpu_seconds:g} s of CPU time"
            case "wall":
                return Outcome.TIMEOUT, f"more than {limits.wall_seconds:g} s of wall-clock time"
            case "memory":
                return Outcome.MEMORY, "the program does not fit into the memory of one test"
            case "threads":
                return Outcome.RUNTIME_ERROR, f"more than {MOST_THREADS} threads"
            case "flood" | "malformed":
                return Outcome.SECURITY, "a report that is not the judge's own"
            case "surplus":
                return Outcome.SECURITY, "more than one claim for one test"
        signalled = os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else 0
        if signalled == signal.SIGXFSZ or len(self.output or b"") > limits.output_bytes:
            return Outcome.OUTPUT_LIMIT, f"more than {limits.output_bytes} bytes"
        if signalled == signal.SIGSYS:
            return Outcome.SECURITY, "a system call by another architecture's gate"
        if signalled:
            return Outcome.RUNTIME_ERROR, f"killed by {signal_name(signalled)}"
        return Outcome.RUNTIME_ERROR, f"exit status {os.waitstatus_to_exitcode(self.status)} without an answer"

    def _receive(self, spent: float = 0.0, spent_wall: float = 0.0, most: int = 0) -> tuple[bytes, bytes] | None:
        if self.ended is not None:
            return None
        cpu, wall = self._job.limits.cpu_seconds - spent, self._job.limits.wall_seconds - spent_wall
        try:
            message = self._child.receive(cpu, wall, most + SLACK_BYTES)
        except EndedError as end:
            self.ended, message = end.cause, None
        self.cpu_seconds = self._child.cpu()
        return message

    def _checked(self, kind: bytes, payload: bytes, wanted: bytes, index: int | None) -> dict[str, Any] | None:
        try:
            data = json.loads(payload)
        except (ValueError, RecursionError):
            data = None
        if kind != wanted or type(data) is not dict or not _is_report(data) or data.get("test") != index:
            self.ended = "malformed"
            return None
        return data

    def _note_reached(self) -> None:
        count, reached = self._program.compiled.probes, self._program.reached
        if count:
            met = int.from_bytes(os.pread(self._probes, count, 0)) | int.from_bytes(reached)
            reached[:] = met.to_bytes(count)

    def _close_files(self) -> None:
        for descriptor in (self._stdin, self._stdout, self._probes):
            os.close(descriptor)


_FIELDS: dict[str, tuple[type, ...]] = {
    "test": (int,),
    "exception": (str,),
    "type": (str,),
    "line": (int, type(None)),
    "memory": (bool,),
    "status": (int,),
    "graph": (dict,),
    "too_deep": (bool,),
    "too_long": (int,),
}


def _is_report(data: dict[str, Any]) -> bool:
    """Whether every field is of its type, and those that are told to a person are of an honest length."""
    told = (data.get("exception") or "", data.get("type") or "")
    return (
        all(key == "value" or type(value) in _FIELDS.get(key, ()) for key, value in data.items())
        and all(len(text) <= faults.MESSAGE_CHARACTERS for text in told)
        and 0 <= (data.get("line") or 0) <= MOST_LINES
    )
