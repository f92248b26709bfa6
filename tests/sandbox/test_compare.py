"""A claim equals an expectation by the rules of the algorithm's first section, and by no others."""

from __future__ import annotations

import contextlib
import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder.problems import values
from stepcoder.problems.values import Opaque
from stepcoder.sandbox.compare import MalformedError, is_well_formed, lines_of, matches, output_matches


def claim_of(value: Any) -> Any:
    return json.loads(json.dumps(values.encode(value)))


class Sub(int):
    pass


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3)
keys = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.tuples(st.integers(), st.text(max_size=2))
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.sets(keys, max_size=4)
        | st.frozensets(keys, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (1, 1.0),
        (1, True),
        (0.0, False),
        (2.5, 2.5000001),
        (0.0, 5e-10),
        (1e20, 10**20),
        ([1, 2], (1, 2)),
        ((1, [2, (3,)]), [1, (2, [3])]),
        ({"a": [1]}, {"a": (1.0,)}),
        ({1: "x"}, {True: "x"}),
        ({1.5: "x"}, {1.5: "x"}),
        ({(1, 2): 3}, {(1, 2): 3.0}),
        ({1, 2}, {2.0, 1}),
        ({0.1}, {0.1 + 1e-12}),
        ({frozenset({0.1})}, {frozenset({0.1 + 1e-12})}),
        (math.nan, math.nan),
        (math.inf, math.inf),
        (10**400, 10**400),
        (b"ab", b"ab"),
        (1 + 2j, 1 + 2j),
        ("", ""),
        (None, None),
        ({"$int": "7"}, {"$int": "7"}),
    ],
)
def test_these_are_equal(expected: Any, actual: Any) -> None:
    assert matches(expected, claim_of(actual))


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (1, 1.0000001),
        (1, 2),
        (2.5, 2.50001),
        (1.0, 10**400),
        (10**400, math.inf),
        (math.inf, -math.inf),
        (1, "1"),
        ("1", 1),
        (None, 0),
        (0, None),
        (False, None),
        ([], None),
        ([1, 2], [2, 1]),
        ([1, 2], [1, 2, 3]),
        ([1, 2], {1, 2}),
        ({1, 2}, [1, 2]),
        ({1, 2}, frozenset({1, 2})),
        ({1, 2}, {1, 3}),
        ({1.0, 2.0}, {1.0, 1.0000001}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1}, {"b": 1}),
        ({1: "x"}, {"1": "x"}),
        ({"a": 1}, [["a", 1]]),
        ("ab", b"ab"),
        ("abc", "ab"),
        ("ab", ["a", "b"]),
        (1 + 2j, 1),
        (1, 1 + 0.5j),
        (7, Sub(7)),
        (7, Opaque("int")),
        ({"$int": "7"}, 7),
        (7, {"$int": "0x7", "x": 1}),
    ],
)
def test_these_are_not_equal(expected: Any, actual: Any) -> None:
    assert not matches(expected, claim_of(actual))


def test_an_opaque_expectation_equals_nothing() -> None:
    assert not matches(Opaque("thing"), claim_of(Opaque("thing")))
    assert not matches([Opaque("thing")], claim_of([Opaque("thing")]))


@given(anything)
def test_every_value_equals_itself_through_the_encoding(value: Any) -> None:
    assert matches(value, claim_of(value))
    assert is_well_formed(claim_of(value))


@given(anything, anything)
def test_the_rules_agree_with_python_where_python_says_equal_and_the_types_are_the_same(left: Any, right: Any) -> None:
    if left == right and type(left) is type(right):
        assert matches(left, claim_of(right))


@given(st.recursive(st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=8))
def test_lists_and_tuples_are_equal_at_every_depth(value: Any) -> None:
    def tuples(item: Any) -> Any:
        return tuple(map(tuples, item)) if isinstance(item, list) else item

    assert matches(value, claim_of(tuples(value)))
    assert matches(tuples(value), claim_of(value))


@given(st.floats(min_value=1e-3, max_value=1e12), st.floats(min_value=-3e-6, max_value=3e-6))
def test_floats_are_compared_relatively(value: float, slip: float) -> None:
    actual = value * (1 + slip)
    difference = abs(actual - value) / max(abs(actual), abs(value))
    if abs(difference - 1e-6) > 1e-9:
        assert matches(value, claim_of(actual)) == (difference < 1e-6)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["$int", "$float", "$tuple", "$set", "$dict", "$x", "k"]), inner, max_size=2
            )
        ),
        max_leaves=8,
    ),
    anything,
)
def test_no_json_breaks_the_comparison(claim: Any, expected: Any) -> None:
    is_well_formed(claim)
    with contextlib.suppress(MalformedError):
        assert matches(expected, claim) in (True, False)


@pytest.mark.parametrize(
    "claim",
    [
        {"$int": 7},
        {"$int": "zz"},
        {"$float": "zz"},
        {"$float": "1" * 99},
        {"$bytes": "z"},
        {"$tuple": 3},
        {"$dict": [[1]]},
        {"$unknown": 1},
        {"$int": "7", "$float": "1"},
        {"$complex": ["1"]},
        {"$complex": ["1", "zz"]},
    ],
)
def test_what_the_encoding_never_writes_is_malformed(claim: Any) -> None:
    assert not is_well_formed(claim)
    assert not is_well_formed([1, {"a": claim}])


def test_keys_that_collide_do_not_hang_the_judge() -> None:
    modulus = 2**61 - 1  # Python's hash of an integer is its remainder by this
    claim = {"$set": [{"$int": hex(modulus * (i + 1))} for i in range(40_000)]}
    started = time.process_time()
    assert not matches(set(range(40_000)), claim)
    assert time.process_time() - started < 2


def test_a_huge_integer_is_compared_without_printing_it() -> None:
    assert matches(10**20_000, claim_of(10**20_000))
    assert not matches(10**20_000, claim_of(10**20_000 + 1))


@pytest.mark.parametrize(
    ("expected", "actual"),
    [("1\n2\n", "1\n2"), ("1 \n2", "1\n2\n\n"), ("a\r\nb", "a\nb"), ("\n", ""), ("x\t", "x"), ("\n1", "\n1 \n")],
)
def test_outputs_are_equal_by_lines(expected: str, actual: str) -> None:
    assert output_matches(expected, actual)
    assert output_matches(actual, expected)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("1\n2", "2\n1"),
        ("Yes", "YES"),
        ("1 2", "1\n2"),
        ("1 2", "1  2"),
        ("12", "1 2"),
        ("1\n\n2", "1\n2"),
        (" 1", "1"),
        ("1", ""),
        ("1", "1\n1"),
        ("1.0", "1"),
    ],
)
def test_outputs_differ_in_anything_else(expected: str, actual: str) -> None:
    assert not output_matches(expected, actual)
    assert not output_matches(actual, expected)


@given(st.lists(st.text(alphabet="ab 1", max_size=4), max_size=5), st.integers(0, 3))
def test_trailing_blanks_and_final_empty_lines_never_count(lines: list[str], more: int) -> None:
    assert lines_of("\n".join(lines)) == lines_of("\n".join(line + " \t" for line in lines) + "\n" * more)
