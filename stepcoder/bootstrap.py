"""Bootstrap over problems: how far a mean, or a difference of two means, can be trusted.

The problem is the unit that is resampled, so what samples of one problem have in common widens the interval as it
should (Efron and Tibshirani 1993, percentile interval).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CHUNK = 1 << 21
"""Resampled problems drawn at once: 16 MiB of indices."""


@dataclass(frozen=True)
class Estimate:
    """A mean over problems and what the bootstrap says about it."""

    value: float
    """The mean over the problems that have a value."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    se: float
    """Standard error: the standard deviation of the mean over the resamples."""
    problems: int
    """How many problems have a value."""


def mean_estimates(values: Floats, *, resamples: int, confidence: float, seed: int) -> list[Estimate | None]:
    """Estimates the mean of every column from the same resamples of the rows.

    Args:
        values: `(problems, columns)`; NaN where a problem has no value, which leaves it out of that column alone.
        resamples: how many times the problems are drawn with replacement.
        confidence: share of the resampled means inside the interval, for example 0.95.
        seed: seed of the draws; the same seed and values give the same estimates.

    Returns:
        One estimate a column; None for a column without a value.
    """
    problems, columns = values.shape
    if problems == 0:
        return [None] * columns
    present = np.isfinite(values)
    filled = np.where(present, values, 0.0)
    counts = present.sum(axis=0)
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, columns))
    step = max(1, _CHUNK // problems)
    for begin in range(0, resamples, step):
        end = min(begin + step, resamples)
        drawn = generator.integers(0, problems, size=(end - begin, problems))
        for column in range(columns):
            total = present[drawn, column].sum(axis=1)
            with np.errstate(invalid="ignore"):
                means[begin:end, column] = filled[drawn, column].sum(axis=1) / total
    tail = (1.0 - confidence) / 2.0
    estimates: list[Estimate | None] = []
    for column in range(columns):
        if counts[column] == 0:
            estimates.append(None)
            continue
        # A resample may miss every problem that has a value; it says nothing about the mean.
        known = means[np.isfinite(means[:, column]), column]
        low, high = np.quantile(known, [tail, 1.0 - tail])
        value = float(filled[:, column].sum() / counts[column])
        estimates.append(Estimate(value, float(low), float(high), float(known.std()), int(counts[column])))
    return estimates


def mean_estimate(values: Floats, *, resamples: int, confidence: float, seed: int) -> Estimate | None:
    """Estimates one mean: `mean_estimates` of the single column `values`, `(problems,)`."""
    return mean_estimates(values[:, None], resamples=resamples, confidence=confidence, seed=seed)[0]


def paired_difference(ours: Floats, theirs: Floats, *, resamples: int, confidence: float, seed: int) -> Estimate | None:
    """Estimates mean(`ours` - `theirs`), problem by problem.

    Drawing a problem brings both models' values with it: what makes a problem hard for both cancels out, and the
    interval is narrower than that of two separate means.

    Args:
        ours: `(problems,)`, NaN where this model has no value.
        theirs: `(problems,)` of the same problems in the same order.
        resamples: see `mean_estimates`.
        confidence: see `mean_estimates`.
        seed: see `mean_estimates`.

    Returns:
        The difference over the problems where both have a value; None if there is none.

    Raises:
        ValueError: the two are not of one shape.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"{ours.shape[0]} problems cannot be paired with {theirs.shape[0]}")
    return mean_estimate(ours - theirs, resamples=resamples, confidence=confidence, seed=seed)
