"""Numbers that are close are equal under the checker `float`, and nothing else gets through."""

from __future__ import annotations

import json
import math
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder.problems import values
from stepcoder.sandbox.compare import Closeness, matches, output_matches
from stepcoder.sandbox.tolerant import different_lines

LOOSE = Closeness(1e-4, 1e-4, between_types=True)
WIDE = Closeness(1e-6, 1e-6, between_types=True)


def close(expected: Any, actual: Any, closeness: Closeness = LOOSE) -> bool:
    return matches(expected, json.loads(json.dumps(values.encode(actual))), closeness=closeness)


def outputs_close(expected: str, actual: str, closeness: Closeness) -> bool:
    return not list(different_lines(expected, actual, closeness))


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (1.0, 1.00005),
        (1, 1.00005),
        (1.00005, 1),
        (0.0, 1e-5),
        (0, -1e-5),
        ([1, [2.5, (3,)]], (1.00001, [2.5001, [3]])),
        ({"a": 2.0}, {"a": 2.0001}),
        ({1.0, 5.0}, {1.00001, 5.0}),
        (1 + 1j, 1.00001 + 1j),
        (math.inf, math.inf),
        (math.nan, math.nan),
        ("1.0", "1.0"),
        (True, 1.0),
        (None, None),
    ],
)
def test_these_values_are_close(expected: Any, actual: Any) -> None:
    assert close(expected, actual)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (1.0, 1.001),
        (1_000_000_007, 1_000_000_006),
        (True, 1.00001),
        ("1.0", "1.00001"),
        ("1.0", 1.0),
        (1.0, "1.0"),
        (1.0, None),
        (1.0, [1.0]),
        (1e308, math.inf),
        (math.inf, 1e308),
        (1.0, math.nan),
        (math.nan, 1.0),
        (math.nan, math.inf),
        (math.inf, -math.inf),
        (5, math.inf),
        (10**400, math.inf),
        (10**400, 10**400 + 1),
        (math.inf, 10**400),
        ([1.0, 2.0], [1.0]),
        ([1.0, 2.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0], {1.0, 2.0}),
        ({1.0, 2.0}, {1.0, 1.00001}),
    ],
)
def test_these_values_are_not_close(expected: Any, actual: Any) -> None:
    assert not close(expected, actual)


def test_the_usual_rules_let_no_float_stand_for_another_integer() -> None:
    assert not matches(1, 1.0000000001)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("1.0", "1.00005"),
        ("1", "1.00005"),
        ("1.00005", "1"),
        ("0", "-0.00001"),
        ("7", "+7"),
        ("7", "007"),
        ("0.5 x", ".5   x"),
        ("1.\n", "1"),
        ("1e3", "1000.0"),
        ("1E-9", "0"),
        ("x 1.0\ny 2.0\n\n", "x 1.00001 \ny\t2.0001"),
        ("nan inf 1e400", "nan inf 1e400"),
        ("1_000", "1_000"),
        ("9" * 1000, "9" * 1000),
        ("", "\n"),
        ("-0.0", "0"),
        ("١", "١"),
    ],
)
def test_these_outputs_are_close(expected: str, actual: str) -> None:
    assert outputs_close(expected, actual, LOOSE)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("1.0", "1.001"),
        ("1000000007", "1000000006"),
        ("1 2", "12"),
        ("12", "1 2"),
        ("1 2", "1\n2"),
        ("1\n2", "1 2"),
        ("1\n2", "1"),
        ("1", "1\n1"),
        ("1\n\n2", "1\n2"),
        ("1.0", "nan"),
        ("nan", "1.0"),
        ("nan", "NaN"),
        ("nan", "inf"),
        ("1.0", "inf"),
        ("inf", "1e400"),
        ("1e400", "inf"),
        ("1e400", "1e401"),
        ("1e400", "1e308"),
        ("-1e400", "1e400"),
        ("inf", "infinity"),
        ("1000", "1_000"),
        ("1.5", "1_1.5"),
        ("1", "0x1"),
        ("1", "1.0j"),
        ("1", "1f"),
        ("1", "١"),
        ("1.5", "１.5"),
        ("1", "1\u00b2"),
        ("1", "--1"),
        ("1", "1e"),
        ("1", "e1"),
        ("1", "."),
        ("0", "-"),
        ("1.5", "1,5"),
        ("a", "A"),
        ("1 2", "1\u20282"),
        ("9" * 1000, "9" * 999 + "8"),
        ("9" * 400, "9" * 401),
        ("1." + "0" * 500, "1.0"),
        ("True", "1"),
    ],
)
def test_these_outputs_are_not_close(expected: str, actual: str) -> None:
    assert not outputs_close(expected, actual, LOOSE)


decimals = st.from_regex(r"[+-]?([0-9]{1,8}(\.[0-9]{0,8})?|\.[0-9]{1,8})([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@given(decimals, decimals | st.floats(allow_nan=False, allow_infinity=False).map(repr))
def test_numbers_are_close_by_the_formula(left: str, right: str) -> None:
    first, second = Decimal(left), Decimal(right)
    difference, larger = abs(first - second), max(abs(first), abs(second))
    bound = max(Decimal("1e-4") * larger, Decimal("1e-4"))
    whole = all(not set(text) & set(".eE") for text in (left, right))
    if whole:
        assert outputs_close(left, right, LOOSE) == (first == second)
    elif abs(difference - bound) > bound * Decimal("1e-9"):
        assert outputs_close(left, right, LOOSE) == (difference <= bound)


outputs = st.lists(
    st.lists(st.sampled_from(["1", "1.0", "2.5", "-3", "nan", "1e400", "x", "1_0", "", " "]), max_size=3).map(" ".join),
    max_size=4,
).map("\n".join)


@given(outputs, outputs)
def test_what_is_exactly_equal_is_close(left: str, right: str) -> None:
    if output_matches(left, right):
        assert outputs_close(left, right, WIDE)
    assert outputs_close(left, left + " \n\n", WIDE)


numbers = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
trees = st.recursive(
    numbers, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
)


@given(trees, trees)
def test_values_that_are_exactly_equal_are_close(left: Any, right: Any) -> None:
    if matches(left, json.loads(json.dumps(values.encode(right)))):
        assert close(left, right, WIDE)
    assert close(left, left, Closeness(0.0, 0.0, between_types=True))


@pytest.mark.parametrize(
    "actual",
    ["1" * (1 << 20), "1." * (1 << 19), "1e" * (1 << 19), "1 " * (1 << 19), "1\n" * (1 << 19), "-" * (1 << 20)],
)
def test_a_megabyte_is_compared_in_linear_time(actual: str) -> None:
    started = time.process_time()
    assert not outputs_close("1.5 " * 1000, actual, LOOSE)
    assert not outputs_close(actual[:-2] + "x", actual, LOOSE)
    assert time.process_time() - started < 5
