"""What a case is: a program, its tests, the outcomes that are allowed, the harm that must not happen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from stepcoder.problems import CallTest, Checker, Exact, StdinTest, Test
from stepcoder.sandbox import Limits, Outcome

WRONG = Outcome.WRONG_ANSWER
ERROR = Outcome.RUNTIME_ERROR
TIMEOUT = Outcome.TIMEOUT
MEMORY = Outcome.MEMORY
OUTPUT = Outcome.OUTPUT_LIMIT
SECURITY = Outcome.SECURITY
COMPILE = Outcome.COMPILE_ERROR
FAILS = frozenset({WRONG, ERROR, TIMEOUT, MEMORY, OUTPUT, SECURITY})
"""All that a program may earn by an attempt. Never a pass, and never `infra_error`: it would escape its reward."""

LIMITS = Limits(cpu_seconds=0.5, wall_seconds=2.0, memory_mib=256, output_bytes=1 << 16)

BREACH = "BREACH"
"""What a program prints when it got hold of something that leaves no trace on the host."""

Tests = Callable[[str], tuple[Test, ...]]
"""From the secret answer of one run, `answer-` and 16 hexadecimal digits, to the tests."""


def one_call(answer: str) -> tuple[Test, ...]:
    """`f(1)` is the answer."""
    return (CallTest.of((1,), answer),)


def two_calls(answer: str) -> tuple[Test, ...]:
    """`f(1)` is the answer and `f(2)` its reverse."""
    return (CallTest.of((1,), answer), CallTest.of((2,), answer[::-1]))


def a_number(answer: str) -> tuple[Test, ...]:
    """`f(1)` is a number of 64 bits."""
    return (CallTest.of((1,), int(answer[-16:], 16)),)


def a_float(answer: str) -> tuple[Test, ...]:
    """`f(1)` is a float that nobody guesses."""
    return (CallTest.of((1,), int(answer[-16:], 16) / 3),)


def a_script(answer: str) -> tuple[Test, ...]:
    """The answer is wanted on standard output."""
    return (StdinTest(stdin="1\n", stdout=f"{answer}\n"),)


def exactly(*tests: Test) -> Tests:
    """Tests that need no secret."""
    return lambda answer: tests


@dataclass(frozen=True)
class Case:
    """One hostile program."""

    name: str
    program: str
    """Source; words such as `@FOLDER@` are filled in, see `host`. It does harm to canaries only, should it succeed."""
    allowed: frozenset[Outcome] | set[Outcome] = FAILS
    """What each of its tests may come to."""
    tests: Tests = one_call
    harm: str = ""
    """What must not happen, for the person who reads a failure. The checks are those of `host`, all after each case."""
    before: str = ""
    """A program that is judged first on the same slot; it may hold the secret."""
    after: str = ""
    """A right program that would show what this one left behind; `f(a, b)` is `a + b`."""
    limits: Limits = LIMITS
    checker: Checker = field(default_factory=Exact)
    """What decides which answers pass."""


@dataclass(frozen=True)
class Control:
    """One right program in unusual form."""

    name: str
    program: str
    tests: tuple[Test, ...]
