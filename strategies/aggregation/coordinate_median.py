"""Coordinate-wise median."""

import torch

from strategies.aggregation.aggregate import Aggregate
from strategies.aggregation.coordinates import mean_of_windows
from strategies.shapes import Float, Tensor


def coordinate_median(
    updates: Float[Tensor, "n d"], prior: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Take the middle value of each coordinate; for even n the mean of the two middle ones.

    torch.median would take the lower of the two middle values, which is off to one side.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        prior: Weights between the two middle values; equal by default.

    Returns:
        The median; as weights each client's share of the coordinates in which it is the median
        (half where it is one of two); as suspicion the share of coordinates in which it is not.
        Of equal values the lowest row counts as the smallest.

    References:
        Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates,
        ICML 2018.
    """
    n = len(updates)
    return mean_of_windows(
        updates,
        lambda ordered: torch.full_like(ordered[:, 0], (n - 1) // 2, dtype=torch.int64),
        2 - n % 2,
        prior,
    )
