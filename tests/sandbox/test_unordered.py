"""The checker `unordered` compares multisets by the exact rules, whatever is claimed."""

from __future__ import annotations

import contextlib
import json
import random
import time
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder.problems import values
from stepcoder.sandbox import compare
from stepcoder.sandbox.unordered import items_match, lines_match


def claim_of(value: Any) -> Any:
    return json.loads(json.dumps(values.encode(value)))


def same(expected: Any, actual: Any, levels: int = 1) -> bool:
    return items_match(expected, claim_of(actual), levels)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ([1, 2, 3], [3, 1, 2]),
        ([1, 2], (2.0, True)),
        ((1, 2), [2, 1]),
        ([], ()),
        ([[1, 2], [3]], [(3,), [1, 2]]),
        ([{"a": 1}, None, "x", b"y"], ["x", b"y", {"a": 1.0}, None]),
        ([{1, 2}, frozenset({3})], [frozenset({3}), {2, 1}]),
        ([{(1, 2): 3}, {}], [{}, {(1, 2): 3}]),
        ([0.1, 0.2], [0.2 + 1e-12, 0.1 - 1e-12]),
        ([float("nan"), 1.0, float("inf")], [float("inf"), float("nan"), 1]),
        ([10**30, 1.5, 1 + 2j], [1 + 2j, 1.5, 10**30]),
        ([(1.0, 5), (1.0 + 1e-12, 3)], [(1.0 + 1e-12, 5), (1.0, 3)]),
        ("ab", "ab"),
        (None, None),
        (3, 3.0),
        ({1, 2}, {2, 1}),
        ({"a": [1, 2]}, {"a": [1, 2]}),
    ],
)
def test_these_have_the_same_items(expected: Any, actual: Any) -> None:
    assert same(expected, actual)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ([1, 2, 2], [1, 1, 2]),
        ([1, 2, 2], [1, 2]),
        ([1, 2], [1, 2, 2]),
        ([1, 2, 3], [1, 2]),
        ([1, 2], []),
        ([1, 2], {1, 2}),
        ([1, 2], frozenset({1, 2})),
        ([], set()),
        ([], {}),
        ([], None),
        ([], ""),
        (["a", "b"], "ab"),
        ({1, 2}, [1, 2]),
        ([1, 2], ["1", "2"]),
        (["1"], [1]),
        ([[1, 2]], [[2, 1]]),
        ([0.1, 0.1], [0.1, 0.2]),
        ([0.1, 0.2], [0.1, 0.2000003]),
        ([1, 2], {"0": 1, "1": 2}),
        ([1, 2], {1: 1, 2: 2}),
        ([[]], [set()]),
        ([{1}], [frozenset({1})]),
        ([b"a"], ["a"]),
        ([values.Opaque("x")], [values.Opaque("x")]),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ("ab", "ba"),
    ],
)
def test_these_have_not(expected: Any, actual: Any) -> None:
    assert not same(expected, actual)


def test_levels_say_how_deep_the_order_does_not_count() -> None:
    expected = [[[1, 2], [3]], [[4, 5]]]
    assert same(expected, [[[4, 5]], [[1, 2], [3]]], 1)
    assert not same(expected, [[[4, 5]], [[3], [1, 2]]], 1)
    assert same(expected, [[[4, 5]], [[3], [1, 2]]], 2)
    assert not same(expected, [[[5, 4]], [[3], [2, 1]]], 2)
    assert same(expected, [[[5, 4]], [[3], [2, 1]]], 3)
    assert not same([[1, 2], [3, 4]], [[1, 3], [2, 4]], 2)
    assert same([[0.5, 1.0], [2.0]], [[2], [1, 0.5 + 1e-12]], 2)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=2),
    max_leaves=6,
)
numbers = st.integers(0, 2) | st.sampled_from([0.0, 0.5, 0.5 + 1e-8, 0.5 + 1e-6, 1.0, 1.0 + 1e-7, float("nan")])


@given(st.lists(plain | numbers, max_size=7), st.randoms(use_true_random=False))
def test_any_permutation_matches(items: list[Any], chance: random.Random) -> None:
    shuffled = items[:]
    chance.shuffle(shuffled)
    assert same(items, shuffled)
    assert same(tuple(items), shuffled, 2)


@given(st.lists(numbers, max_size=5), st.lists(numbers, max_size=5))
def test_items_match_when_some_permutation_is_exactly_equal(expected: list[Any], actual: list[Any]) -> None:
    orders = permutations(actual) if len(expected) == len(actual) else ()
    assert same(expected, actual) == any(compare.matches(expected, claim_of(list(order))) for order in orders)


@given(st.lists(st.tuples(numbers, numbers), max_size=4), st.lists(st.tuples(numbers, numbers), max_size=4))
def test_pairs_match_when_some_permutation_is_exactly_equal(expected: list[Any], actual: list[Any]) -> None:
    orders = permutations(actual) if len(expected) == len(actual) else ()
    assert same(expected, actual) == any(compare.matches(expected, claim_of(list(order))) for order in orders)


@given(plain | st.lists(plain | numbers, max_size=5), plain | st.lists(plain | numbers, max_size=5))
def test_what_is_exactly_equal_matches_in_any_order_too(left: Any, right: Any) -> None:
    if compare.matches(left, claim_of(right)):
        assert same(left, right)
        assert same(left, right, 3)
    assert same(left, left)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["$int", "$float", "$tuple", "$set", "$dict", "$complex", "k"]), inner)
        ),
        max_leaves=8,
    ),
    st.lists(plain | numbers, max_size=3),
)
def test_no_well_formed_claim_breaks_the_comparison(claim: Any, expected: Any) -> None:
    if compare.is_well_formed(claim):
        with contextlib.suppress(compare.MalformedError):
            assert items_match(expected, claim, 2) in (True, False)


@pytest.mark.parametrize("other", [0.0, 1e-9])
def test_a_long_answer_is_sorted_not_searched(other: float) -> None:
    items = [number / 7 for number in range(50_000)]
    shuffled = [item + other for item in items]
    random.Random(1).shuffle(shuffled)
    claim = claim_of(shuffled)
    started = time.process_time()
    assert items_match(items, claim, 1)
    assert not items_match(items, [*claim[:-1], claim[0] + 1], 1)
    assert time.process_time() - started < 5


def test_keys_that_collide_do_not_hang_the_judge() -> None:
    modulus = 2**61 - 1
    claim = [{"$int": hex(modulus * (i + 1))} for i in range(40_000)]
    claim += [{"$set": [{"$int": hex(modulus * (i + 1))} for i in range(40_000)]}]
    started = time.process_time()
    assert not items_match(list(range(40_001)), claim, 1)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("width", [40, 500])
def test_near_misses_cost_a_bounded_number_of_trials(width: int) -> None:
    expected = [[0.5] * width + [0.25 + place] for place in range(200)]
    actual = [[0.5 + 1e-9] * width + [0.26 + place] for place in range(200)]
    claim = claim_of(actual)
    started = time.process_time()
    assert not items_match([expected] * 3, [claim] * 3, 2)
    assert time.process_time() - started < 10


def test_a_claim_nested_deeper_than_any_value_is_no_match() -> None:
    claim: Any = 1
    for _ in range(400):
        claim = [claim]
    assert not items_match([1], claim, 8)
    assert not items_match([[1]], [claim], 1)


@pytest.mark.parametrize(
    ("expected", "actual", "levels"),
    [
        ("a\nb\n", "b \na", 1),
        ("a\n\nb", "b\n\n\na\n", 1),
        ("", "\n\n", 1),
        ("1 2\n3", "3\n1 2", 1),
        ("1 2\n3", "3\n2   1", 2),
        ("1 10", "10 1", 2),
    ],
)
def test_these_outputs_have_the_same_lines(expected: str, actual: str, levels: int) -> None:
    assert lines_match(expected, actual, levels)


@pytest.mark.parametrize(
    ("expected", "actual", "levels"),
    [
        ("a\nb", "a", 1),
        ("a\nb", "a\nb\nb", 1),
        ("a\na\nb", "a\nb\nb", 1),
        ("a\nb", "a b", 1),
        ("a\nb", "ab", 2),
        ("1 2", "2 1", 1),
        ("1 2", "1  2", 1),
        (" a", "a", 1),
        ("1 2\n3 4", "1 3\n2 4", 2),
        ("1 2", "12", 2),
        ("1 2", "1\u20282", 2),
        ("A", "a", 1),
        ("1", "1.0", 2),
    ],
)
def test_these_outputs_have_not(expected: str, actual: str, levels: int) -> None:
    assert not lines_match(expected, actual, levels)
    assert not lines_match(actual, expected, levels)


@given(st.lists(st.text("ab 1", max_size=4), max_size=6), st.randoms(use_true_random=False))
def test_lines_match_in_any_order(lines: list[str], chance: random.Random) -> None:
    shuffled = lines[:]
    chance.shuffle(shuffled)
    assert lines_match("\n".join(lines), "\n".join(shuffled), 1)
    assert lines_match("\n".join(lines), "\n".join(shuffled) + "\n", 2)
