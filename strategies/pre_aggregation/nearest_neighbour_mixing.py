"""Nearest-neighbour mixing: replace each client by the mean of those closest to it."""

import torch

from strategies.aggregation.distances import squared_distances
from strategies.aggregation.traits import Bound, Traits
from strategies.pre_aggregation.mixed import Mixed, mixed_rows
from strategies.shapes import Float, Tensor

nearest_neighbour_mixing_bound = Bound("nearest_neighbour_mixing", 2, 1)


@Traits(bound=nearest_neighbour_mixing_bound)
def nearest_neighbour_mixing(updates: Float[Tensor, "n d"], n_malicious: int) -> Mixed:
    """Replace each row by the mean of the n - f rows nearest to it, itself among them (NNM).

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: The bound f the defence assumes; the rule that follows should assume the same.

    Returns:
        updates: The mixed rows.
        mixing: 1 / (n - f) for each neighbour, 0 for the others; copies have the mean of theirs.

    Bound:
        n >= 2f + 1, else TooFewClientsError: the n - f nearest could be mostly malicious.

    Ties:
        Of equally distant rows the lowest are neighbours, and copies of them share their places; a
        row without copies is always its own neighbour.

    Variants:
        ByzFL is the same but for ties, and takes any f < n.

    References:
        Allouah et al., Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity,
        AISTATS 2023.
    """
    n = len(updates)
    nearest_neighbour_mixing_bound(n, n_malicious)
    distances = squared_distances(updates)
    neighbours = distances.argsort(dim=1, stable=True)[:, : n - n_malicious]
    mixing = torch.zeros_like(distances).scatter_(1, neighbours, 1 / (n - n_malicious))
    copies = (distances == 0).to(distances)
    mixing = mixing @ copies.div_(copies.sum(dim=1, keepdim=True))
    return Mixed(mixed_rows(updates, mixing), mixing)
