"""Which answers are right: a problem's checker, named by its record and never guessed.

Each class says what it means for a call test (a value is returned) and for a standard-input test (an output is
printed). The exact rules, which the others build on, are those of `stepcoder.sandbox.compare`. Check tests hold their
own answers: no checker applies to them.
"""

from __future__ import annotations

import ast
import keyword
import warnings
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from stepcoder.problems.code import syntax_fault
from stepcoder.problems.record import Record


class Exact(Record):
    """One right answer.

    Call: equal to `expected`, booleans, integers and floats by value, a list to a tuple, a float within 1e-6 relative
    or 1e-9 absolute. Standard input: the same lines, trailing blanks and final empty lines apart.
    """

    name: Literal["exact"] = "exact"


class Float(Record):
    """Numbers are right when they are close.

    Two numbers are close when they differ by at most `relative` of the larger one, or by at most `absolute`. Two
    integers are not close unless they are equal: the tolerance is for numbers of which one at least is written with
    a point or an exponent. Infinity is close to itself alone, and so is NaN.

    Call: the exact rules, with closeness for every number in `expected`, integers included; booleans in `expected`
    stay exact. Standard input: line by line, the same number of words in each. Words that both are plain decimal
    numbers (`-12`, `.5`, `1.`, `2e-3`; ASCII digits, at most 400 characters) by closeness, integers by value; all
    other words, such as `nan`, `inf`, `1_000` or `0x1`, have to be the same. A number beyond all floats, such as
    `1e400`, equals only its own text. Blanks between words do not count.
    """

    name: Literal["float"] = "float"
    relative: float = Field(default=1e-6, ge=0, lt=1, allow_inf_nan=False)
    """Share of the larger number by which two may differ."""
    absolute: float = Field(default=1e-6, ge=0, allow_inf_nan=False)
    """Difference that is always allowed."""


class Unordered(Record):
    """The order of items does not count, their number does.

    Call: where `expected` is a list or tuple, the answer is a list or tuple of the same items by the exact rules, each
    as often; where it is anything else, the exact rules. Items keep their own order within, unless `levels` says
    otherwise. Standard input: the same lines, each as often; trailing blanks and empty lines do not count.
    """

    name: Literal["unordered"] = "unordered"
    levels: int = Field(default=1, ge=1, le=8)
    """Levels of lists in which the order does not count. 1: the outermost list, or lines; 2: also the lists in it, or
    the words of each line; standard input has no third."""


class AnyOf(Record):
    """Several right answers, all of them listed.

    Call: `expected` is a non-empty list of accepted values, and the answer equals one of them by the exact rules.
    Standard input: the output equals `stdout` or one of `alternatives`, each as a whole, by the exact rules.
    """

    name: Literal["any_of"] = "any_of"


class CheckerProgram(Record):
    """A function decides. It runs in a sandbox process of its own, within the limits of one test.

    Call: `check(arguments, expected, actual)` with the list of the call's positional arguments; where the test has
    keyword arguments, a dictionary of them is the fourth argument. Standard input: `check(stdin, expected, actual)`
    with three strings. `True` accepts and anything else rejects. An exception, or no answer within the limits, is
    never a pass. A value that holds an object of an unknown type is wrong before the function is asked.

    The code stands by itself: the problem's preamble is not in scope, the usual contest modules and names are.
    """

    name: Literal["program"] = "program"
    code: str
    """Python source that defines the function at its top level."""
    entry_point: str = "check"
    """The function's name."""

    @model_validator(mode="after")
    def _defines_its_entry_point(self) -> Self:
        if not self.entry_point.isidentifier() or keyword.iskeyword(self.entry_point):
            raise ValueError(f"entry_point {self.entry_point!r} is no name of a function")
        fault = syntax_fault(self.code)
        if fault is not None:
            raise ValueError(f"code: {fault}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(self.code).body
        if not any(isinstance(node, ast.FunctionDef) and node.name == self.entry_point for node in body):
            raise ValueError(f"code defines no function {self.entry_point!r} at its top level")
        return self


def _long_form(value: Any) -> Any:
    """`"unordered"` is short for `{"name": "unordered"}`."""
    return {"name": value} if isinstance(value, str) else value


Checker = Annotated[
    Annotated[Exact | Float | Unordered | AnyOf | CheckerProgram, Field(discriminator="name")],
    BeforeValidator(_long_form),
]

EXACT = Exact()

_CHECKER: TypeAdapter[Checker] = TypeAdapter(Checker)


def parse_checker(data: Any) -> Checker:
    """A checker from its name, or from an object with its name and settings.

    Raises:
        pydantic.ValidationError: there is no such checker, or its settings are not valid.
    """
    return _CHECKER.validate_python(data)
