"""The process of a check: statements that call `candidate`, which is a proxy to the program in another process."""

from __future__ import annotations

import builtins
import json
import sys
from types import CodeType, ModuleType
from typing import Any

from stepcoder.sandbox.inside import faults, frames
from stepcoder.sandbox.inside.graph import Graph

CHECK = "<check>"


class UnknownValueError(Exception):
    """The candidate returned an object of a type that the check has no class for."""


class ForgedAnswerError(Exception):
    """What came back for a call is nothing that an honest program's process sends."""


class _Candidate:
    """What the name `candidate` stands for in a check: calls go to the judge, and from there to the program."""

    def __init__(self, link: int, module: ModuleType) -> None:
        self._link = link
        self._module = module
        self.raised: BaseException | None = None
        """What the last call raised, if it did."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        graph = Graph(self._module)
        frames.send(self._link, frames.ASK, json.dumps(graph.encode(args, kwargs)).encode())
        _, payload = frames.receive(self._link)
        answer = json.loads(payload)
        if "exception" in answer:
            self.raised = _exception(answer["type"], answer["exception"])
            raise self.raised
        try:
            (value,) = graph.decode(answer)
        except ValueError as error:
            self.raised = ForgedAnswerError(str(error))
            raise self.raised from error
        if graph.unknown is not None:
            self.raised = UnknownValueError(graph.unknown)
            raise self.raised
        return value


def run_check(link: int, code: CodeType, module: ModuleType) -> None:
    """Runs one check and claims how it ended."""
    candidate = _Candidate(link, module)
    module.__dict__["candidate"] = candidate
    claim: dict[str, Any] = {"test": 0}
    try:
        exec(code, module.__dict__)
    except BaseException as error:
        claim |= faults.describe(error, CHECK)
        claim["assertion"] = isinstance(error, AssertionError)
        claim["candidate"] = error is candidate.raised
        claim["unknown"] = str(error) if isinstance(error, UnknownValueError) else ""
        claim["forged"] = isinstance(error, ForgedAnswerError)
    sys.stdout.flush()
    frames.send(link, frames.CLAIM, json.dumps(claim).encode())


def _exception(name: str, text: str) -> BaseException:
    """An exception of the builtin type of that name, so that a check may expect it; else of a type of its own.

    Not those that end an iteration: around `map(candidate, …)` they would leave out the rest of the check's cases.
    """
    kind = getattr(builtins, name, None)
    message = text.partition(": ")[2]
    if isinstance(kind, type) and issubclass(kind, Exception) and kind not in (StopIteration, StopAsyncIteration):
        try:
            return kind(message)
        except TypeError:  # it wants more than a message
            return RuntimeError(text)
    return RuntimeError(text)
