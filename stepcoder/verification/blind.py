"""Checkers that accept too much: a program that always gives the same empty answer must not pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from stepcoder.problems import CallTest, CheckerProgram, Float, Problem, StdinTest, values
from stepcoder.sandbox import Job, Limits, Sandbox, compare, job_of
from stepcoder.verification.judging import settled
from stepcoder.verification.reasons import Reason, Rejection

EMPTY_VALUES: tuple[Any, ...] = (None, [], {}, "", 0)


class _Probe(NamedTuple):
    problem: Problem
    answer: Any
    job: Job


def credulous(problems: Iterable[Problem], sandbox: Sandbox, limits: Limits) -> dict[str, Rejection]:
    """The problems, by id, whose checker passes a program that gives the same empty answer to every test.

    Such a program prints nothing and always returns the same value. Where that is what every test expects, the checker
    is not to blame. Asked are checker programs, and `float`, whose tolerance may be too wide; other checkers accept
    only what the record lists.

    Raises:
        StepCoderError: the sandbox failed.
    """
    probes = [
        _Probe(problem, answer, job_of(problem, _program(problem, answer), limits=limits, trace=False))
        for problem in problems
        for answer in _answers(problem)
        if not all(_is_expected(test, answer) for test in problem.tests)
    ]
    pending = [sandbox.submit(probe.job) for probe in probes]
    found: dict[str, Rejection] = {}
    for probe, future in zip(probes, pending, strict=True):
        verdict = future.result()
        if not verdict.judged:
            verdict = settled(probe.job, sandbox, f"the checker of {probe.problem.id}")
        if verdict.passed and probe.problem.id not in found:
            by_call = any(isinstance(test, CallTest) for test in probe.problem.tests)
            told = f"always returns {probe.answer!r}" if by_call else "prints nothing"
            detail = f"the checker accepts a program that {told}, in every test; mend the checker, or drop the record"
            found[probe.problem.id] = Rejection(Reason.CHECKER, detail)
    return found


def _answers(problem: Problem) -> Sequence[Any]:
    if any(isinstance(test, CallTest) for test in problem.tests):
        return EMPTY_VALUES if isinstance(problem.checker, CheckerProgram | Float) else ()
    return (None,) if isinstance(problem.checker, CheckerProgram) else ()


def _is_expected(test: object, answer: Any) -> bool:
    if isinstance(test, CallTest):
        return compare.matches(test.expected, values.encode(answer))
    return isinstance(test, StdinTest) and compare.output_matches(test.stdout, "")


def _program(problem: Problem, answer: Any) -> str:
    owner, _, method = problem.entry_point.rpartition(".")
    if owner:
        return f"class {owner}:\n    def {method}(self, *args, **kwargs):\n        return {answer!r}\n"
    return f"def {method}(*args, **kwargs):\n    return {answer!r}\n"
