"""Verdict to reward (paper section 3.3; Le et al. 2022): the first failing test decides."""

from __future__ import annotations

from stepcoder.sandbox.job import Outcome

PASS = 1.0
WRONG_ANSWER = -0.3
RUNTIME_ERROR = -0.6
COMPILE_ERROR = -1.0

_REWARDS: dict[Outcome, float | None] = {
    Outcome.PASS: PASS,
    Outcome.WRONG_ANSWER: WRONG_ANSWER,
    Outcome.RUNTIME_ERROR: RUNTIME_ERROR,
    # A limit or a security stop ends the program as an exception would.
    Outcome.TIMEOUT: RUNTIME_ERROR,
    Outcome.MEMORY: RUNTIME_ERROR,
    Outcome.OUTPUT_LIMIT: RUNTIME_ERROR,
    Outcome.SECURITY: RUNTIME_ERROR,
    Outcome.COMPILE_ERROR: COMPILE_ERROR,
    # Nothing is known about the program: no reward, neither a pass nor a zero.
    Outcome.INFRA_ERROR: None,
    Outcome.NOT_RUN: None,
}


def reward(outcome: Outcome) -> float | None:
    """The reward of a program by its overall outcome.

    Returns:
        +1 (all tests pass), -0.3 (a test fails), -0.6 (runtime error or a limit), -1 (does not compile), or `None`
        when the judge itself failed and the sample has to be left out.
    """
    return _REWARDS[outcome]
