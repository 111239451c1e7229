"""Coordinate-wise trimmed mean."""

import torch

from strategies.aggregation.aggregate import Aggregate, TooFewClientsError
from strategies.aggregation.coordinates import mean_of_windows
from strategies.shapes import Float, Tensor


def trimmed_mean_bound(n: int, n_malicious: int) -> None:
    """Raise TooFewClientsError if trimming f at each end leaves nobody."""
    if n <= 2 * n_malicious:
        raise TooFewClientsError(
            f"trimmed_mean needs n >= 2f + 1 clients, got n={n} and f={n_malicious}: "
            f"sample at least {2 * n_malicious + 1} clients or lower n_malicious"
        )


def trimmed_mean(
    updates: Float[Tensor, "n d"], n_malicious: int, prior: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Drop the f smallest and f largest values of each coordinate and average the rest.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: How many values f to drop at each end of each coordinate.
        prior: Weights among the survivors of a coordinate; equal (the paper's) by default.

    Returns:
        The mean of the survivors; as weights each client's share of the coordinates in which it
        survives (times its prior); as suspicion the share of coordinates in which it is dropped.
        Of equal values the lowest row counts as the smallest.

    Raises:
        TooFewClientsError: If n < 2f + 1.

    References:
        Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates,
        ICML 2018. Flower, BackFed and FLPoison give the trimmed share (0.2, 0.2, 0.1) in place
        of f.
    """
    n = len(updates)
    trimmed_mean_bound(n, n_malicious)
    return mean_of_windows(
        updates,
        lambda ordered: torch.full_like(ordered[:, 0], n_malicious, dtype=torch.int64),
        n - 2 * n_malicious,
        prior,
    )
