"""pass@k without bias (Chen et al. 2021, "Evaluating Large Language Models Trained on Code", equation 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stepcoder.bootstrap import Floats


def pass_at_k(samples: int, passes: int, k: int) -> float:
    """The probability that at least one of `k` samples, drawn from those at hand without replacement, passes.

    `1 - C(n - c, k) / C(n, k)` with n samples of which c pass: the mean over all subsets of size k, so its
    expectation is the true pass@k, which `1 - (1 - c/n)^k` underestimates.

    Args:
        samples: n, the number of judged samples of the problem.
        passes: c, how many of them pass.
        k: size of the subset.

    Returns:
        The estimate, or NaN when there are fewer than `k` samples.

    Raises:
        ValueError: the numbers cannot be counts of this kind.
    """
    if k < 1 or not 0 <= passes <= samples:
        raise ValueError(f"{passes} passes of {samples} samples, k={k}")
    if samples < k:
        return math.nan
    # Whole numbers all the way: the quotient is the nearest float to the exact value.
    return 1.0 - math.comb(samples - passes, k) / math.comb(samples, k)


def pass_at_ks(counts: Sequence[tuple[int, int]], ks: Sequence[int]) -> Floats:
    """`pass_at_k` of several problems for several k.

    Args:
        counts: `(passes, judged samples)` of every problem.
        ks: the sizes of subsets.

    Returns:
        `(problems, ks)`; NaN where a problem has fewer than k judged samples.
    """
    values = [[pass_at_k(samples, passes, k) for k in ks] for passes, samples in counts]
    return np.array(values, dtype=np.float64).reshape(len(counts), len(ks))
