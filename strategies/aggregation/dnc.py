"""Divide-and-conquer (DnC): drop who stands out along the direction of largest spread."""

import numpy as np
import torch

from strategies.aggregation.aggregate import (
    Aggregate,
    TooFewClientsError,
    column_blocks,
    mean_of_selected,
)
from strategies.aggregation.krum import lowest
from strategies.shapes import Float, Int, Tensor


def n_dropped(n_malicious: int, filter_fraction: float) -> int:
    """Return c · f, rounded down: how many clients each repeat drops."""
    return int(filter_fraction * n_malicious)


def dnc_bound(n: int, n_malicious: int, filter_fraction: float = 1.0) -> None:
    """Raise TooFewClientsError if a repeat would drop half of the clients or more."""
    dropped = n_dropped(n_malicious, filter_fraction)
    if n <= 2 * dropped:
        raise TooFewClientsError(
            f"dnc needs n >= 2cf + 1 clients, got n={n}, f={n_malicious} and c={filter_fraction}: "
            f"sample at least {2 * dropped + 1} clients or lower n_malicious"
        )


def dnc(
    updates: Float[Tensor, "n d"],
    rng: np.random.Generator,
    n_malicious: int,
    n_repeats: int = 5,
    n_coordinates: int = 10_000,
    filter_fraction: float = 1.0,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Average the clients that survive every repeat of a spectral filter on random coordinates.

    A repeat draws coordinates, subtracts the mean, projects every client on the top right singular
    vector and drops the c · f largest squared projections. Projections are read off the small
    matrix of inner products, n by n: its top eigenvector is what singular vectors project to.
    One attacker can hide where the mean is that another has dragged away (n = 11, sizes 1e4 and
    1e5): nothing bounds the result then.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        rng: Draws the coordinates.
        n_malicious: The bound f the defence assumes; the true count may differ.
        n_repeats: How many filters must be passed. 5: FLPoison; 1: the authors' code.
        n_coordinates: How many coordinates each draws; 10,000 in the authors' code, a fifth of
            all in FLPoison.
        filter_fraction: c; 1 everywhere.
        prior: Weights among the survivors; equal by default.

    Returns:
        The mean of the survivors and their weights, all 0 where nobody survives; as suspicion the
        share of the squared projections, averaged over repeats. Ties keep the lowest rows.

    Raises:
        TooFewClientsError: If n < 2cf + 1.

    References:
        Shejwalkar and Houmansadr, Manipulating the Byzantine, NDSS 2021, algorithm 2.
    """
    n, d = updates.shape
    dnc_bound(n, n_malicious, filter_fraction)
    n_kept = n - n_dropped(n_malicious, filter_fraction)
    survives = torch.ones(n, dtype=torch.bool, device=updates.device)
    suspicion = torch.zeros(n, dtype=torch.float64, device=updates.device)
    for _ in range(n_repeats):
        drawn = np.sort(rng.choice(d, size=min(n_coordinates, d), replace=False))
        shares = _squared_projections(updates, torch.from_numpy(drawn).to(updates.device))
        survives &= lowest(shares, n_kept)
        suspicion += shares / n_repeats
    return mean_of_selected(updates, survives, prior, suspicion)


def _squared_projections(
    updates: Float[Tensor, "n d"], drawn: Int[Tensor, " k"]
) -> Float[Tensor, " n"]:
    """Return each row's share of the squared projections on the direction of largest spread."""
    gram = torch.zeros(len(updates), len(updates), dtype=torch.float64, device=updates.device)
    sample = updates[:, drawn]
    for columns in column_blocks(sample):
        block = sample[:, columns].double()  # squares of giants are finite here
        block -= block.mean(dim=0)
        gram += block @ block.T
    return (
        torch.linalg.eigh(gram / gram.diagonal().max().clamp(min=1e-300)).eigenvectors[:, -1] ** 2
    )
