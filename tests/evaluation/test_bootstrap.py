import itertools

import numpy as np
import pytest

from stepcoder.bootstrap import mean_estimate, mean_estimates, paired_difference

SETTINGS = {"resamples": 20_000, "confidence": 0.95, "seed": 3}


def test_the_interval_is_that_of_all_resamples_of_a_small_set():
    # 4 problems have 4^4 = 256 resamples, all equally likely: their quantiles and spread are known exactly.
    values = np.array([0.0, 0.1, 0.5, 1.0])
    means = np.array([np.mean(drawn) for drawn in itertools.product(values, repeat=4)])
    estimate = mean_estimate(values, **SETTINGS)
    assert estimate.value == pytest.approx(0.4)
    assert estimate.low == pytest.approx(np.quantile(means, 0.025), abs=0.03)
    assert estimate.high == pytest.approx(np.quantile(means, 0.975), abs=0.03)
    assert estimate.se == pytest.approx(means.std(), rel=0.03)
    assert estimate.problems == 4


def test_the_standard_error_is_that_of_a_mean():
    values = (np.arange(400) % 4 == 0).astype(float)  # a quarter ones: sd = sqrt(3)/4
    assert mean_estimate(values, **SETTINGS).se == pytest.approx(np.sqrt(3) / 4 / 20, rel=0.03)


def test_intervals_hold_the_true_mean_about_as_often_as_they_say():
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        estimate = mean_estimate((generator.random(80) < 0.3).astype(float), resamples=500, confidence=0.9, seed=1)
        held += estimate.low <= 0.3 <= estimate.high
    # 90 % of 300 with a standard deviation of 5.2; the percentile interval runs a little short.
    assert 250 <= held <= 288


def test_pairing_removes_what_both_models_share():
    hard = np.tile([0.0, 1.0], 50)
    ours, theirs = np.clip(hard + 0.1, 0, 1), hard
    paired = paired_difference(ours, theirs, **SETTINGS)
    assert paired.value == pytest.approx(0.05)
    assert paired.low > 0.0
    separate = mean_estimate(ours, **SETTINGS)
    assert separate.low < np.mean(theirs) < separate.high


def test_a_model_against_itself_differs_by_nothing():
    values = np.array([0.0, 0.3, 1.0])
    estimate = paired_difference(values, values, **SETTINGS)
    assert (estimate.value, estimate.low, estimate.high) == (0.0, 0.0, 0.0)


def test_problems_without_a_value_are_left_out():
    values = np.array([[1.0, np.nan], [0.0, 1.0], [np.nan, np.nan]])
    first, second = mean_estimates(values, **SETTINGS)
    assert (first.value, first.problems) == (0.5, 2)
    assert (second.value, second.low, second.problems) == (1.0, 1.0, 1)
    pair = paired_difference(values[:, 0], values[:, 1], **SETTINGS)
    assert (pair.value, pair.problems) == (-1.0, 1)


def test_no_value_at_all_gives_no_estimate():
    assert mean_estimate(np.array([np.nan, np.nan]), **SETTINGS) is None
    assert mean_estimate(np.empty(0), **SETTINGS) is None


def test_the_seed_decides_and_nothing_else():
    values = np.linspace(0, 1, 50)
    assert mean_estimate(values, **SETTINGS) == mean_estimate(values, **SETTINGS)
    assert mean_estimate(values, **SETTINGS) != mean_estimate(values, **{**SETTINGS, "seed": 4})


def test_unequal_lengths_cannot_be_paired():
    with pytest.raises(ValueError, match="2 problems cannot be paired with 3"):
        paired_difference(np.zeros(2), np.zeros(3), **SETTINGS)
