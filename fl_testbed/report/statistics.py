"""What a few seeds say about a method."""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t; scipy.stats takes long to import

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean over seeds and how well it is known."""

    mean: float
    """NaN where there is no value."""
    half_width: float
    """Half of the 95 % interval; NaN for fewer than two seeds."""
    n: int
    """Seeds that have a value."""

    @property
    def p_value(self) -> float:
        """Two-sided p-value for a true mean of 0: below 0.05 where the interval excludes 0."""
        if self.half_width == 0:
            return float(self.mean == 0)
        return float(2 * stdtr(self.n - 1, -abs(self.mean) / self.half_width * _quantile(self.n)))


NO_VALUE = Estimate(math.nan, math.nan, 0)


def estimate(values: np.ndarray) -> Estimate:
    """Return the mean over seeds with its 95 % interval by Student's t; NaNs are left out."""
    present = values[~np.isnan(values)]
    n = len(present)
    if n == 0:
        return NO_VALUE
    mean = float(present.mean())
    if n == 1:
        return Estimate(mean, math.nan, 1)
    return Estimate(mean, _quantile(n) * float(present.std(ddof=1)) / math.sqrt(n), n)


def _quantile(n: int) -> float:
    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))


def pareto_optimal(costs: np.ndarray) -> np.ndarray:
    """Mark the rows that no other row dominates, being as low everywhere and lower somewhere.

    Args:
        costs: Shape (rows, figures), lower is better.
    """
    beaten = [((costs <= own).all(axis=1) & (costs < own).any(axis=1)).any() for own in costs]
    return ~np.array(beaten, dtype=bool)
