"""Whether an answer is right by the checker of its problem, and what to tell a person when it is not."""

from __future__ import annotations

from typing import Any, NamedTuple

from stepcoder.problems import values
from stepcoder.problems.checker import AnyOf, CheckerProgram, Exact, Float, Unordered
from stepcoder.problems.problem import CallTest, StdinTest
from stepcoder.sandbox import compare, tolerant, unordered
from stepcoder.sandbox.bench import Bench
from stepcoder.sandbox.checker_program import objection
from stepcoder.sandbox.compare import Closeness
from stepcoder.sandbox.job import Outcome
from stepcoder.sandbox.prepared import PreparedTest
from stepcoder.sandbox.words import brief_claim, brief_value, output_difference


class Ruling(NamedTuple):
    """What becomes of one answer: `pass`, `wrong_answer`, or `security` for a claim that is forged."""

    outcome: Outcome
    detail: str = ""


RIGHT = Ruling(Outcome.PASS)


def rule_on_claim(bench: Bench, test: PreparedTest, claim: dict[str, Any]) -> Ruling:
    """Rules on the returned value that a program's process claims for a call test.

    Raises:
        ZygoteError: a process of the judge is gone.
    """
    assert isinstance(test.test, CallTest)
    if "value" not in claim:
        return Ruling(Outcome.WRONG_ANSWER, f"expected {brief_value(test.test.expected)}, got no value")
    value = claim["value"]
    if type(bench.job.checker) is Exact and test.encoded is not None and value == test.encoded:
        return RIGHT
    try:
        if not compare.is_well_formed(value):
            raise compare.MalformedError("no encoding of a value")
        fault = _fault_of_value(bench, test.test, value)
    except compare.MalformedError as error:
        return Ruling(Outcome.SECURITY, f"a forged report: {error}")
    return RIGHT if fault is None else Ruling(Outcome.WRONG_ANSWER, fault)


def rule_on_output(bench: Bench, test: StdinTest, actual: str) -> Ruling:
    """Rules on the standard output of a program.

    Raises:
        ZygoteError: a process of the judge is gone.
    """
    fault = _fault_of_output(bench, test, actual)
    return RIGHT if fault is None else Ruling(Outcome.WRONG_ANSWER, fault)


def _fault_of_value(bench: Bench, test: CallTest, value: Any) -> str | None:
    """What is wrong with a well-formed claim; None if it is right."""
    expected = test.expected
    told = f"expected {brief_value(expected)}"
    match bench.job.checker:
        case Exact():
            right = compare.matches(expected, value)
        case Float() as checker:
            right = compare.matches(expected, value, closeness=_closeness(checker))
            told += f" to {checker.relative:g} relative or {checker.absolute:g} absolute"
        case Unordered(levels=levels):
            right = unordered.items_match(expected, value, levels)
            told += " in any order"
        case AnyOf():
            accepted = expected if type(expected) in (list, tuple) else ()
            right = any(compare.matches(item, value) for item in accepted)
            told = f"expected one of {brief_value(expected)}"
        case CheckerProgram() as checker:
            if not compare.is_known(value):
                return f"the checker cannot be asked about {brief_claim(value)}"
            arguments = [[values.encode(item) for item in test.args], values.encode(expected), value]
            if test.kwargs:
                arguments.append(values.encode(test.kwargs))
            why = objection(bench, checker, arguments)
            return (
                why and f"{why}; it was asked about {brief_claim(value)}, the expected value is {brief_value(expected)}"
            )
    return None if right else f"{told}, got {brief_claim(value)}"


def _fault_of_output(bench: Bench, test: StdinTest, actual: str) -> str | None:
    """What is wrong with an output; None if it is right."""
    expected = test.stdout
    match bench.job.checker:
        case Exact():
            return None if compare.output_matches(expected, actual) else output_difference(expected, actual)
        case Float() as checker:
            found = next(tolerant.different_lines(expected, actual, _closeness(checker)), None)
            return found and _line_difference(*found)
        case Unordered(levels=levels):
            right = unordered.lines_match(expected, actual, levels)
            return None if right else f"not the same lines in any order; in this order {_difference(expected, actual)}"
        case AnyOf():
            accepted = (expected, *test.alternatives)
            if any(compare.output_matches(output, actual) for output in accepted):
                return None
            return f"none of {len(accepted)} accepted outputs; from the first {output_difference(expected, actual)}"
        case CheckerProgram() as checker:
            why = objection(bench, checker, [test.stdin, expected, actual])
            return why and f"{why}; it was asked about {brief_value(actual)}"


def _closeness(checker: Float) -> Closeness:
    return Closeness(checker.relative, checker.absolute, between_types=True)


def _difference(expected: str, actual: str) -> str:
    return "nothing differs" if compare.output_matches(expected, actual) else output_difference(expected, actual)


def _line_difference(number: int, expected: str | None, actual: str | None) -> str:
    if actual is None:
        return f"line {number} is missing: {brief_value(expected)}"
    if expected is None:
        return f"line {number} is too many: {brief_value(actual)}"
    return f"line {number}: expected {brief_value(expected)}, got {brief_value(actual)}"
