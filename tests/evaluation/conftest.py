"""Problems and judged samples made by hand, in the form that sampling gives them."""

from dataclasses import dataclass

import pytest

from stepcoder.evaluation.samples import JudgedSample
from stepcoder.problems.problem import CallTest, Problem
from stepcoder.sandbox.job import Outcome, Span, Statement, TestResult, Verdict

STARTER = "def double(number):\n"
PROGRAM = STARTER + "    if number < 0:\n        return -1\n    return number * 2\n"
STATEMENTS = (
    Statement(Span(1, 0, 1, 19), True),
    Statement(Span(2, 4, 2, 18), True),
    Statement(Span(3, 8, 3, 17), False),
    Statement(Span(4, 4, 4, 21), True),
)


@dataclass(frozen=True)
class Sampled:
    """A sample as `stepcoder.rollouts` gives it, without needing torch to make one."""

    problem_id: str
    index: int
    opened: str
    completion: str
    program: str
    verdict: Verdict
    tokens: int = 20
    truncated: bool = False


def problem(name: str, difficulty: str | None = None) -> Problem:
    return Problem(
        id=name,
        statement=f"Double a number ({name}).",
        starter=STARTER,
        solution=PROGRAM,
        entry_point="double",
        tests=(CallTest.of((2,), 4),),
        difficulty=difficulty,
    )


def sampled(name: str, index: int, outcome: Outcome, program: str = PROGRAM, **changes) -> Sampled:
    error = "ZeroDivisionError: division by zero" if outcome is Outcome.RUNTIME_ERROR else None
    test = TestResult(outcome, exception=error, line=2 if error else None)
    statements = STATEMENTS if program == PROGRAM and outcome is not Outcome.COMPILE_ERROR else ()
    verdict = changes.pop("verdict", Verdict(f"{name}#{index}", outcome, (test,), statements))
    completion = changes.pop("completion", program.removeprefix(STARTER) + "```\n")
    return Sampled(name, index, STARTER, completion, program, verdict, **changes)


def judged(*args, **changes) -> JudgedSample:
    return JudgedSample.of(sampled(*args, **changes))


@pytest.fixture
def make_problem():
    return problem


@pytest.fixture
def make_sample():
    return judged


@pytest.fixture
def make_raw_sample():
    return sampled
