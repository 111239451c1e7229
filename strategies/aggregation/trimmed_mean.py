"""Coordinate-wise trimmed mean."""

import numpy as np
import torch

from strategies.aggregation.aggregate import Aggregate, TooFewClientsError, prior_or_uniform
from strategies.shapes import Float, Tensor

BLOCK = 8_192  # columns sorted at a time; contiguous rows of a block sort in cache


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
    n, d = updates.shape
    trimmed_mean_bound(n, n_malicious)
    prior = prior_or_uniform(updates, prior)
    update = torch.empty_like(updates[0])
    weights = torch.zeros(n, dtype=torch.float64, device=updates.device)
    n_survived = torch.zeros(n, dtype=torch.float64, device=updates.device)
    for start in range(0, d, BLOCK):
        block = updates[:, start : start + BLOCK]
        survives = _survivors(block, n_malicious)
        shares = survives * prior[:, None]
        shares /= shares.sum(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
        update[start : start + BLOCK] = torch.where(survives, block * shares, 0.0).sum(dim=0)
        weights += shares.sum(dim=1)
        n_survived += survives.sum(dim=1)
    return Aggregate(update, weights / d, 1 - n_survived / d)


def _survivors(block: Float[Tensor, "n columns"], n_trimmed: int) -> Tensor:
    """Mark the values that are neither among the smallest nor the largest of their column."""
    n = len(block)
    if n_trimmed == 0:
        return torch.ones_like(block, dtype=torch.bool)
    # Sorting contiguous rows in numpy is over ten times faster than torch.sort along clients.
    if block.device.type == "cpu":
        by_column = np.sort(block.T.contiguous().numpy(), axis=1)
        low = torch.from_numpy(by_column[:, n_trimmed].copy())
        high = torch.from_numpy(by_column[:, n - n_trimmed - 1].copy())
    else:
        ordered = block.sort(dim=0).values
        low, high = ordered[n_trimmed], ordered[n - n_trimmed - 1]
    survives = (block >= low) & (block <= high)
    tied = (survives.sum(dim=0) != n - 2 * n_trimmed).nonzero().squeeze(1)
    if len(tied):  # equal values at a border: decide by row
        ranks = block[:, tied].argsort(dim=0, stable=True).argsort(dim=0, stable=True)
        survives[:, tied] = (ranks >= n_trimmed) & (ranks < n - n_trimmed)
    return survives
