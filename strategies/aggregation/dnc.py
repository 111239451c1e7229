"""Divide-and-conquer (DnC): drop clients that stand out along the direction of largest spread."""

import numpy as np
import torch

from strategies.aggregation.aggregate import Aggregate, mean_of_selected, shared_by_copies
from strategies.aggregation.distances import gram_in_float64
from strategies.aggregation.krum import lowest
from strategies.aggregation.traits import Bound, Traits
from strategies.shapes import Float, Int, Tensor

MANY = 500  # rows from which on only the top eigenvector is computed, in a tenth of the time of all


def n_dropped(n_malicious: int, filter_fraction: float) -> int:
    """Return c · f, rounded down: how many clients each repeat drops."""
    return int(round(filter_fraction * n_malicious, 9))  # 1.4 · 45 is 62.999… in floats


dnc_bound = Bound("dnc", 2, 1, counted="cf")


@Traits(bound=dnc_bound, selects=True, compares_pairs=True)
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
    matrix of inner products, n by n: its top eigenvector is proportional to them.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        rng: Draws the coordinates.
        n_malicious: The bound f the defence assumes; the true count may differ.
        n_repeats: How many filters must be passed.
        n_coordinates: How many coordinates each repeat draws; all where there are fewer.
        filter_fraction: c; c · f is rounded down.
        prior: Weights among the survivors; equal by default.

    Returns:
        update: The mean of the survivors.
        weights: Equal among the survivors, or in proportion to their prior; all 0 where nobody
            survives.
        suspicion: The client's share of the squared projections, averaged over repeats.

    Bound:
        n >= 2cf + 1, else TooFewClientsError. It guarantees nothing: one attacker can hide near the
        mean that another has dragged away (n = 11, sizes 1e4 and 1e5).

    Ties:
        Of equal projections the lowest rows stay. Copies of a row that stays share its weight.

    Variants:
        Blades makes 1 repeat on 10,000 coordinates, SignGuard's code 1 on 1,000, FLPoison 5 on a
        fifth of all; c is 1 in Blades and FLPoison, and in effect in SignGuard's code: it has
        1 - 1 / n and rounds n - c · f down, as FLPoison does, not c · f. The authors' release has
        no DnC.

    References:
        Shejwalkar and Houmansadr, Manipulating the Byzantine: Optimizing Model Poisoning Attacks
        and Defenses for Federated Learning, NDSS 2021, algorithm 2.
    """
    n, d = updates.shape
    dropped = n_dropped(n_malicious, filter_fraction)
    dnc_bound(n, dropped)
    survives = torch.ones(n, dtype=torch.bool, device=updates.device)
    suspicion = torch.zeros(n, dtype=torch.float64, device=updates.device)
    for _ in range(n_repeats):
        drawn = np.sort(rng.choice(d, size=min(n_coordinates, d), replace=False))
        shares = _squared_projections(updates, torch.from_numpy(drawn).to(updates.device))
        survives &= lowest(shares, n - dropped)
        suspicion += shares / n_repeats
    result = mean_of_selected(updates, survives, prior, suspicion)
    return shared_by_copies(result, updates, prior)


def _squared_projections(
    updates: Float[Tensor, "n d"], drawn: Int[Tensor, " k"]
) -> Float[Tensor, " n"]:
    """Return each row's share of the squared projections on the direction of largest spread."""
    gram = gram_in_float64(updates[:, drawn], centred=True)
    largest = gram.diagonal().max()
    gram /= largest.clamp(min=1e-300)
    return _top_eigenvector(gram) ** 2 * (largest > 0)  # where all rows agree, it is arbitrary


def _top_eigenvector(gram: Float[Tensor, "n n"]) -> Float[Tensor, " n"]:
    if len(gram) >= MANY and gram.device.type == "cpu":
        # here, since a bare machine may lack it
        from scipy.sparse.linalg import ArpackError, eigsh

        start = np.random.default_rng(0).standard_normal(len(gram))  # so that it is repeatable
        try:
            return torch.from_numpy(eigsh(gram.numpy(), k=1, which="LA", v0=start)[1][:, 0])
        except ArpackError:  # does not converge, or nobody moves
            pass
    return torch.linalg.eigh(gram).eigenvectors[:, -1]
