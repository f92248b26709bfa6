import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder.evaluation.pass_at_k import pass_at_k, pass_at_ks


@pytest.mark.parametrize(
    ("samples", "passes", "k", "expected"),
    [
        (4, 1, 1, 1 / 4),
        (4, 1, 2, 1 / 2),  # 3 of the 6 pairs hold the one that passes
        (4, 2, 2, 5 / 6),  # only one pair holds none of the two
        (5, 3, 3, 1.0),  # there are not three failures to draw
        (10, 0, 5, 0.0),
        (10, 10, 1, 1.0),
        (1, 1, 1, 1.0),
    ],
)
def test_pass_at_k_is_what_a_hand_count_gives(samples, passes, k, expected):
    assert pass_at_k(samples, passes, k) == pytest.approx(expected, abs=1e-15)


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_all_subsets_that_hold_a_pass(case):
    samples, passes, k = case
    marks = [True] * passes + [False] * (samples - passes)
    subsets = [any(subset) for subset in itertools.combinations(marks, k)]
    assert pass_at_k(samples, passes, k) == pytest.approx(sum(subsets) / len(subsets), abs=1e-12)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_pass_at_1_is_the_share_that_passes(case):
    samples, passes = case
    assert pass_at_k(samples, passes, 1) == pytest.approx(passes / samples, abs=1e-12)


def test_the_estimate_has_no_bias():
    # Independent of the formula: the mean over every possible outcome of n tries is the true 1 - (1 - p)^k.
    n, k, p = 6, 3, 0.3
    mean = sum(math.comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at_k(n, c, k) for c in range(n + 1))
    assert mean == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_fewer_samples_than_k_give_no_estimate():
    assert math.isnan(pass_at_k(3, 2, 4))
    assert math.isnan(pass_at_k(0, 0, 1))


@pytest.mark.parametrize(("samples", "passes", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0)])
def test_impossible_counts_are_refused(samples, passes, k):
    with pytest.raises(ValueError, match="samples"):
        pass_at_k(samples, passes, k)


def test_several_problems_and_sizes_make_a_table():
    table = pass_at_ks([(1, 4), (0, 2)], [1, 2, 4])
    np.testing.assert_allclose(table, [[0.25, 0.5, 1.0], [0.0, 0.0, np.nan]])
    assert pass_at_ks([], [1, 2]).shape == (0, 2)
