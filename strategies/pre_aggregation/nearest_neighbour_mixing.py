"""Nearest-neighbour mixing: replace each client by the mean of those closest to it."""

import torch

from strategies.aggregation.aggregate import TooFewClientsError
from strategies.aggregation.distances import squared_distances
from strategies.pre_aggregation.mixed import Mixed, mixed_rows
from strategies.shapes import Float, Tensor


def nearest_neighbour_mixing_bound(n: int, n_malicious: int) -> None:
    """Raise TooFewClientsError if the n - f nearest could be mostly malicious (n < 2f + 1)."""
    if n <= 2 * n_malicious:
        raise TooFewClientsError(
            f"nearest_neighbour_mixing needs n >= 2f + 1 clients, got n={n} and f={n_malicious}: "
            f"sample at least {2 * n_malicious + 1} clients or lower n_malicious"
        )


def nearest_neighbour_mixing(updates: Float[Tensor, "n d"], n_malicious: int) -> Mixed:
    """Replace each row by the mean of the n - f rows nearest to it, itself among them.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: The bound f the defence assumes; the rule that follows should assume the same.

    Returns:
        The mixed rows, and 1 / (n - f) for each neighbour as mixing. Of equally distant rows the
        lowest are neighbours; a row is always its own.

    Raises:
        TooFewClientsError: If n < 2f + 1.

    References:
        Allouah et al., Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity,
        AISTATS 2023.
    """
    n = len(updates)
    nearest_neighbour_mixing_bound(n, n_malicious)
    distances = squared_distances(updates).fill_diagonal_(-1)  # itself first, before duplicates
    neighbours = distances.argsort(dim=1, stable=True)[:, : n - n_malicious]
    mixing = torch.zeros_like(distances).scatter_(1, neighbours, 1 / (n - n_malicious))
    return Mixed(mixed_rows(updates, mixing), mixing)
