"""From counts of passed samples to figures: means over seeds, intervals, paired differences, curves. Pure functions.

Two kinds of interval answer two questions. Over seeds (Student's t): would other warm starts and other roll-outs give
the same? Over seeds and problems at once (bootstrap of both, by family): and other problems of the kind, too?
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.learning.settings import BASELINE, SWITCHES, Variant
from stepcoder.evaluation.pass_at_k import pass_at_k

Floats = NDArray[np.float64]
Bucket = tuple[int, int | None]
"""Lowest and highest number of conditional statements."""

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 10_000
_CHUNK: Final = 1000
ALL: Final = "all"


def bucket_name(bucket: Bucket) -> str:
    """As tables show it: `2`, `0-1`, `3+`."""
    low, high = bucket
    return f"{low}+" if high is None else str(low) if low == high else f"{low}-{high}"


def summarise(
    measured: Mapping[tuple[int, Variant], Sequence[Mapping[str, Any]]],
    buckets: Sequence[Bucket],
    ks: Sequence[int],
    *,
    baseline: Variant = BASELINE,
) -> dict[str, Any]:
    """Means over seeds and paired differences to the baseline, by number of conditional statements.

    Args:
        measured: for each seed and variant the rows of the same problems in the same order, as `unit.measure` gives
            them. Seeds that lack a variant are left out of what needs it.
        buckets: groups of problems.
        ks: sizes for pass@k.
        baseline: what differences are to.

    Returns:
        `problems` by bucket, and `variants` and `differences` as variant, bucket, `pass@k`.

    Raises:
        ValueError: two units have measured different problems.
    """
    some = next(iter(measured.values()))
    names = [row["id"] for row in some]
    for key, rows in measured.items():
        if [row["id"] for row in rows] != names:
            raise ValueError(f"{key} has measured other problems than {next(iter(measured))}")
    statements = np.array([row["conditionals"] for row in some])
    families = np.unique([row["family"] for row in some], return_inverse=True)[1]
    groups = {ALL: np.ones(len(names), dtype=bool)}
    for low, high in buckets:
        inside = (statements >= low) & (statements <= (math.inf if high is None else high))
        if inside.any():
            groups[bucket_name((low, high))] = inside
    variants: dict[str, Any] = {}
    differences: dict[str, Any] = {}
    for variant in ("sft", *SWITCHES):
        ours = {seed: rows for (seed, name), rows in measured.items() if name == variant}
        theirs = {seed: rows for (seed, name), rows in measured.items() if name == baseline}
        both = sorted(ours.keys() & theirs.keys())
        if not ours:
            continue
        variants[variant] = {group: {} for group in groups}
        differences[variant] = {group: {} for group in groups}
        for k in ks:
            values = {seed: _pass_at(ours[seed], k) for seed in sorted(ours)}
            changes = np.array([values[seed] - _pass_at(theirs[seed], k) for seed in both]).reshape(len(both), -1)
            for group, inside in groups.items():
                means = {seed: _mean(row[inside]) for seed, row in values.items()}
                variants[variant][group][f"pass@{k}"] = over_seeds(means)
                if variant != baseline and both:
                    apart = over_seeds({seed: _mean(row[inside]) for seed, row in zip(both, changes, strict=True)})
                    low, high = bootstrap_interval(changes[:, inside], families[inside])
                    differences[variant][group][f"pass@{k}"] = {**apart, "boot_low": low, "boot_high": high}
    differences.pop(baseline, None)
    return {
        "problems": {group: int(inside.sum()) for group, inside in groups.items()},
        "variants": variants,
        "differences": differences,
    }


def over_seeds(values: Mapping[int, float]) -> dict[str, Any]:
    """Mean over seeds with Student's interval: `mean ± t(0.975, n - 1) s / sqrt(n)`; none with a single seed."""
    numbers = np.array(list(values.values()))
    n, mean = len(numbers), float(numbers.mean())
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * numbers.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    return {
        "mean": mean,
        "low": None if half is None else mean - half,
        "high": None if half is None else mean + half,
        "seeds": {str(seed): float(value) for seed, value in values.items()},
    }


def bootstrap_interval(values: Floats, families: NDArray[np.int64], *, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean when seeds and families of problems are both drawn anew.

    Args:
        values: `(seeds, problems)`; NaN where a problem has no value.
        families: `(problems,)`, the family of each.
        seed: of the draws.
    """
    present = np.isfinite(values)
    members = np.unique(families, return_inverse=True)[1]
    count = int(members.max()) + 1
    sums, sizes = np.zeros((len(values), count)), np.zeros((len(values), count))
    for row, (filled, there) in enumerate(zip(np.where(present, values, 0.0), present, strict=True)):
        sums[row] = np.bincount(members, filled, minlength=count)
        sizes[row] = np.bincount(members, there, minlength=count)
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for begin in range(0, RESAMPLES, _CHUNK):
        chunk = slice(begin, begin + _CHUNK)
        # How often each seed is drawn weighs its sums; then families are drawn from what that gives.
        seeds = generator.multinomial(len(values), np.full(len(values), 1 / len(values)), size=len(means[chunk]))
        drawn = generator.integers(0, count, size=(len(seeds), count))
        total, present_in_it = (np.take_along_axis(seeds @ table, drawn, axis=1).sum(axis=1) for table in (sums, sizes))
        with np.errstate(invalid="ignore"):
            means[chunk] = total / present_in_it
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(means, [tail, 1 - tail])
    return float(low), float(high)


def curve(runs: Mapping[int, Sequence[tuple[float, float]]]) -> list[dict[str, float | None]]:
    """One curve from those of several seeds: mean and interval at every place that all of them have."""
    places = sorted(set.intersection(*({x for x, _ in points} for points in runs.values()))) if runs else []
    tables = {seed: dict(points) for seed, points in runs.items()}
    rows = []
    for x in places:
        here = over_seeds({seed: table[x] for seed, table in tables.items()})
        rows.append({"x": x, "mean": here["mean"], "low": here["low"], "high": here["high"]})
    return rows


def _pass_at(rows: Sequence[Mapping[str, Any]], k: int) -> Floats:
    return np.array([pass_at_k(row["samples"], row["passed"], k) for row in rows])


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan
