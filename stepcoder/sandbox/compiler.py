"""The judge's side of compiling: one process a slot, started again when a source text has ended it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from stepcoder.sandbox.children import Child, EndedError, memory_file
from stepcoder.sandbox.inside import frames
from stepcoder.sandbox.job import Limits, Outcome, Span, TestResult
from stepcoder.sandbox.recent import Recent
from stepcoder.sandbox.zygote import Zygote

MOST_BYTES = 256 << 20
MOST_CODE_BYTES = 16 << 20
CODE_IN_MEMORY = 16
"""Code may take so many times more room when it is loaded."""
KEPT = 512
"""Compiled preambles and checks that are remembered; they come back with every sample of a problem."""
ATTEMPTS = 2
"""A process that dies may have been killed by someone else: what kills it twice is the source text."""
USES = 20_000
"""Programs after which the process is replaced, so that what a large one left in its memory does not stay."""


@dataclass(frozen=True)
class Compiled:
    """A source text as code. The judge passes the code on and never looks into it."""

    code: bytes = b""
    spans: tuple[Span, ...] = ()
    """Of statements, in the order of their probes."""
    arms: tuple[Span, ...] = ()
    """Of arms of expressions; their probes follow those of the statements."""
    calls_itself: bool = False
    rejection: TestResult | None = None
    """Why it does not compile, within the limits that it was compiled for."""

    @property
    def probes(self) -> int:
        """The number of probes."""
        return len(self.spans) + len(self.arms)


class Compiler:
    """Compiles with a process forked from a zygote."""

    def __init__(self, zygote: Zygote) -> None:
        self._zygote = zygote
        self._files: tuple[int, ...] = (memory_file(), memory_file())
        self._child: Child | None = None
        self._uses = 0
        self._kept: Recent[tuple[str, str, Limits], Compiled] = Recent(KEPT)

    def compile(
        self,
        source: str,
        filename: str,
        limits: Limits,
        entry_point: str = "",
        traced: bool = False,
        branches: bool = False,
    ) -> Compiled:
        """Compiles one source text within the limits of one test.

        Raises:
            ZygoteError: the zygote does not answer.
        """
        request: dict[str, str | bool] = {"source": source, "filename": filename, "entry_point": entry_point}
        request |= {"traced": traced, "branches": traced and branches}
        message = frames.pack(frames.SOURCE, json.dumps(request).encode())
        for _ in range(ATTEMPTS):
            try:
                return self._compile(message, limits)
            except EndedError as end:
                self._end()
                cause = end.cause
                if cause != "exit":
                    break
        why = "the compiler died" if cause == "exit" else f"compiling takes more than {limits.cpu_seconds:g} s"
        return Compiled(rejection=TestResult(Outcome.COMPILE_ERROR, detail=why))

    def compile_once(self, source: str, filename: str, limits: Limits) -> Compiled:
        """The same for a source text that comes with the problem, and so comes again."""
        key = (filename, source, limits)
        found = self._kept.get(key)
        if found is None:
            found = self.compile(source, filename, limits)
            self._kept.put(key, found)
        return found

    def _compile(self, message: bytes, limits: Limits) -> Compiled:
        if self._child is None or self._uses >= USES:
            self._end()
            stdin, other = self._files
            self._child = self._zygote.fork(stdin, other, other)
        self._uses += 1
        self._child.mark()
        self._child.send(message)
        kind, payload = self._child.receive(limits.cpu_seconds, limits.wall_seconds, MOST_BYTES)
        report = json.loads(payload)
        if kind == frames.REJECTED:
            fault = TestResult(Outcome.COMPILE_ERROR, exception=report["exception"], line=report["line"])
            return Compiled(rejection=fault)
        _, code = self._child.receive(limits.cpu_seconds, limits.wall_seconds, MOST_BYTES)
        if len(code) > min(MOST_CODE_BYTES, (limits.memory_mib << 20) // CODE_IN_MEMORY):
            detail = f"compiles to {len(code)} bytes, too many for {limits.memory_mib} MiB of memory"
            return Compiled(rejection=TestResult(Outcome.COMPILE_ERROR, detail=detail))
        spans, arms = (tuple(Span(*span) for span in report[name]) for name in ("spans", "arms"))
        return Compiled(code, spans, arms, report["calls_itself"])

    def close(self) -> None:
        """Closes the judge's descriptors; the process ends with its zygote."""
        if self._child is not None:
            self._child.close()
            self._child = None
        for descriptor in self._files:
            os.close(descriptor)
        self._files = ()

    def _end(self) -> None:
        child, self._child, self._uses = self._child, None, 0
        if child is not None:
            self._zygote.reap(child)
            child.close()
