"""A defence of one's own: leave out the updates that stand farthest from the coordinate median."""

import torch

from strategies.aggregation import Aggregate, TooFewClientsError


def near_the_median(updates, n_malicious):
    """Average the n − f updates nearest to the coordinate median."""
    n = len(updates)
    if n <= 2 * n_malicious:
        raise TooFewClientsError(f"needs more than {2 * n_malicious} updates, got {n}")
    distances = (updates - updates.median(dim=0).values).norm(dim=1)
    kept = distances.argsort()[: n - n_malicious]
    weights = torch.zeros(n)
    weights[kept] = 1 / len(kept)
    return Aggregate(weights @ updates, weights, suspicion=distances)
