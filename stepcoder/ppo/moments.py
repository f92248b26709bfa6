"""Running moments of the rewards, for the optional scaling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of all values so far (Chan et al. 1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def updated(self, values: Sequence[float]) -> Moments:
        """The moments with more values."""
        mean = sum(values) / len(values)
        squares = sum((value - mean) ** 2 for value in values)
        count = self.count + len(values)
        shift = mean - self.mean
        return Moments(
            count,
            self.mean + shift * len(values) / count,
            self.squares + squares + shift**2 * self.count * len(values) / count,
        )

    @property
    def deviation(self) -> float:
        """Standard deviation; 1 while it is not known or zero."""
        deviation = math.sqrt(self.squares / self.count) if self.count else 0.0
        # Where all values are equal, rounding leaves a little.
        return deviation if deviation > 1e-6 * abs(self.mean) else 1.0


NO_REWARDS_YET = Moments()
