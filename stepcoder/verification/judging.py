"""Reference solutions run in the sandbox: every test, several times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace

from stepcoder.errors import StepCoderError
from stepcoder.problems import CallTest, Problem, StdinTest, Test
from stepcoder.sandbox import Job, Limits, Outcome, Sandbox, TestResult, Verdict, job_of
from stepcoder.verification.journal import Judgement
from stepcoder.verification.reasons import Reason, Rejection

ATTEMPTS = 4
"""Times that a run is tried when the sandbox itself fails."""
IN_FLIGHT = 64
"""Problems that are with the sandbox at the same time."""

REASONS = {
    Outcome.WRONG_ANSWER: Reason.WRONG_ANSWER,
    Outcome.RUNTIME_ERROR: Reason.RUNTIME_ERROR,
    Outcome.TIMEOUT: Reason.TIMEOUT,
    Outcome.MEMORY: Reason.MEMORY,
    Outcome.OUTPUT_LIMIT: Reason.OUTPUT_LIMIT,
    Outcome.COMPILE_ERROR: Reason.SYNTAX_ERROR,
    Outcome.SECURITY: Reason.SECURITY,
}
"""The reason for a reference solution's outcome."""
_MISSING = ("ModuleNotFoundError", "ImportError")


@dataclass
class _Case:
    problem: Problem
    verdicts: list[Verdict] = field(default_factory=list)
    failures: int = 0


def judge(
    problems: Iterable[Problem], sandbox: Sandbox, limits: Limits, repeats: int
) -> Iterator[tuple[Problem, Judgement]]:
    """Judges each problem's reference solution `repeats` times, and gives the judgements as they come.

    Raises:
        StepCoderError: the sandbox failed on some problems `ATTEMPTS` times; all others have been judged before.
    """
    waiting = iter(problems)
    running: dict[Future[Verdict], tuple[_Case, int]] = {}
    open_cases = 0
    lost: list[str] = []
    while True:
        while open_cases < IN_FLIGHT and (problem := next(waiting, None)) is not None:
            case = _Case(problem)
            open_cases += 1
            for run in range(repeats):
                running[sandbox.submit(_job(problem, limits, run))] = case, run
        if not running:
            break
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            case, run = running.pop(future)
            verdict = future.result()
            if not verdict.judged:
                case.failures += 1
                if case.failures < ATTEMPTS * repeats:
                    running[sandbox.submit(_job(case.problem, limits, run))] = case, run
                    continue
            case.verdicts.append(verdict)
            if len(case.verdicts) < repeats:
                continue
            open_cases -= 1
            if not all(verdict.judged for verdict in case.verdicts):
                details = [result.detail for verdict in case.verdicts for result in verdict.tests if result.detail]
                lost.append(f"{case.problem.id}: {details[0] if details else 'no detail'}")
            else:
                yield case.problem, judgement_of(case.problem, case.verdicts)
    if lost:
        shown = "\n".join(sorted(lost)[:10])
        raise StepCoderError(
            f"the sandbox failed on {len(lost)} reference solutions after {ATTEMPTS} attempts; nothing can be said "
            f"about them. All others are judged and kept: run the same command again.\n{shown}"
        )


def judgement_of(problem: Problem, verdicts: list[Verdict]) -> Judgement:
    """What several runs of one reference solution say: `None` when all passed."""
    if all(verdict.passed for verdict in verdicts):
        return None
    outcomes = [tuple(result.outcome for result in verdict.tests) for verdict in verdicts]
    worst = next(verdict for verdict in verdicts if not verdict.passed)
    index = next((i for i, result in enumerate(worst.tests) if result.outcome is not Outcome.PASS), 0)
    detail = _tell(problem, index, worst.tests[index]) if worst.tests else worst.outcome.value
    if len(set(outcomes)) > 1:
        differs = next(i for i, column in enumerate(zip(*outcomes, strict=True)) if len(set(column)) > 1)
        runs = ", ".join(column[differs].value for column in outcomes)
        return Rejection(Reason.FLAKY, f"test {differs}: {runs} in {len(verdicts)} runs of the same program; {detail}")
    exception = worst.tests[index].exception or "" if worst.tests else ""
    if worst.outcome is Outcome.RUNTIME_ERROR and exception.startswith(_MISSING):
        return Rejection(Reason.MISSING_LIBRARY, detail)
    return Rejection(REASONS[worst.outcome], detail)


def _job(problem: Problem, limits: Limits, run: int) -> Job:
    return replace(job_of(problem, problem.solution, limits=limits, trace=False), run=run)


def settled(job: Job, sandbox: Sandbox, what: str) -> Verdict:
    """The verdict of one job, tried again where the sandbox fails.

    Raises:
        StepCoderError: it failed `ATTEMPTS` times; `what` names the job.
    """
    for _ in range(ATTEMPTS):
        verdict = sandbox.submit(job).result()
        if verdict.judged:
            return verdict
    raise StepCoderError(f"the sandbox failed {ATTEMPTS} times on {what}: {verdict.tests[0].detail}")


def _tell(problem: Problem, index: int, result: TestResult) -> str:
    parts = [f"test {index} of {len(problem.tests)} (from 0): {result.outcome.value}"]
    if result.exception:
        parts.append(result.exception + (f" in line {result.line}" if result.line else ""))
    if result.detail:
        parts.append(result.detail)
    return "; ".join([*parts, _input(problem.tests[index])])


def _input(test: Test) -> str:
    if isinstance(test, StdinTest):
        return f"input {_short(test.stdin)}"
    if isinstance(test, CallTest):
        arguments = [_short(value) for value in test.args]
        arguments += [f"{name}={_short(value)}" for name, value in test.kwargs.items()]
        return f"arguments ({', '.join(arguments)})"
    return f"check {_short(test.code.rstrip().rpartition(chr(10))[2])}"


def _short(value: object, longest: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= longest else text[:longest] + "…"
