"""A programming problem and its tests, in the one form that every later step reads."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainSerializer, PlainValidator, model_validator

from stepcoder.problems import values
from stepcoder.problems.checker import EXACT, AnyOf, Checker, Exact, Unordered
from stepcoder.problems.record import Record

TaggedValue = Annotated[Any, PlainValidator(values.decode), PlainSerializer(values.encode)]
"""A Python value that is written as tagged JSON: tuples, sets, bytes and non-string keys survive.

Validation decodes, so build tests from Python values with `values.encode`, or through `CallTest.of`.
"""

Difficulty = Literal["introductory", "interview", "competition"]


class CallTest(Record):
    """The entry point is called with values, and its return value is compared with `expected`."""

    kind: Literal["call"] = "call"
    args: tuple[TaggedValue, ...] = ()
    """Positional arguments, as Python values."""
    kwargs: dict[str, TaggedValue] = Field(default={})
    """Keyword arguments, as Python values."""
    expected: TaggedValue
    """The right return value; under the checker `any_of` a list of them. It never enters the process that runs the
    program."""

    @classmethod
    def of(cls, args: tuple[Any, ...], expected: Any, kwargs: dict[str, Any] | None = None) -> CallTest:
        """Builds a test from plain Python values."""
        return cls(
            args=tuple(values.encode(value) for value in args),
            kwargs={name: values.encode(value) for name, value in (kwargs or {}).items()},
            expected=values.encode(expected),
        )


class StdinTest(Record):
    """The entry point is called without arguments; standard output is compared with `stdout`."""

    kind: Literal["stdin"] = "stdin"
    stdin: str
    """The whole standard input."""
    stdout: str
    """The whole right standard output. It never enters the process that runs the program."""
    alternatives: tuple[str, ...] = ()
    """Whole outputs that are right too; only under the checker `any_of`."""


class CheckTest(Record):
    """Statements that use the name `candidate` and raise when it is wrong.

    They run in a process of their own; `candidate` there is a proxy to the program's process.
    """

    kind: Literal["check"] = "check"
    code: str
    """Python statements; an `AssertionError` means a wrong answer."""


Test = Annotated[CallTest | StdinTest | CheckTest, Field(discriminator="kind")]


class Problem(Record):
    """One problem: a statement, the code that is given, a reference solution and tests.

    The judged program is `preamble`, then what the model was given and wrote. A reference program is
    `preamble + solution`.
    """

    id: str
    """Unique in its dataset: the record's own id, or one made from a hash of its content."""
    statement: str
    """What is asked, in natural language, without code to complete."""
    starter: str
    """The code that is given: it ends in a newline, and the model continues it."""
    solution: str
    """The whole reference solution; it may hold imports or helpers before the starter's signature."""
    entry_point: str
    """What the tests call: `name`, or `Class.method` for a method of a class that is built without arguments."""
    tests: tuple[Test, ...]
    checker: Checker = EXACT
    """Which answers to call and standard-input tests are right."""
    preamble: str = ""
    """Code in scope before the program that is not part of the prompt's opened code (imports, node classes)."""
    difficulty: Difficulty | None = None
    family: str | None = None
    """Problems of one family go to the same split: a near-twin never crosses from training to test."""
    source: str = ""
    """Where the record comes from: `format:line` or the record's own key; for messages."""

    @property
    def characters(self) -> int:
        """Length of statement, starter and solution together."""
        return len(self.statement) + len(self.starter) + len(self.solution)

    @model_validator(mode="after")
    def _checker_fits_the_tests(self) -> Self:
        for index, test in enumerate(self.tests):
            fault = misfit(self.checker, test)
            if fault is not None:
                raise ValueError(f"tests.{index}: {fault}")
        if type(self.checker) is not Exact and all(isinstance(test, CheckTest) for test in self.tests):
            raise ValueError(
                f"checker: {self.checker.name!r} has no test to apply to: check tests hold their own answers"
            )
        return self


def misfit(checker: Checker, test: Test) -> str | None:
    """What keeps a checker from deciding a test, if anything does."""
    match test:
        case CallTest() if isinstance(checker, AnyOf):
            if type(test.expected) not in (list, tuple) or not test.expected:
                return "expected: must be a non-empty list of accepted values under the checker 'any_of'"
        case StdinTest():
            if test.alternatives and not isinstance(checker, AnyOf):
                return f"alternatives: only under the checker 'any_of', not {checker.name!r}"
            if isinstance(checker, Unordered) and checker.levels > 2:
                return "standard output has two levels (lines and words); set `levels` of the checker to 1 or 2"
    return None
