"""A defence of one's own: leave out the updates that stand farthest from the coordinate median."""

from strategies.aggregation import Aggregate, TooFewClientsError


def near_the_median(updates, prior, n_malicious):
    """Average the n − f updates nearest to the coordinate median."""
    n = len(updates)
    if n <= 2 * n_malicious:
        raise TooFewClientsError(f"needs more than {2 * n_malicious} updates, got {n}")
    distances = (updates - updates.median(dim=0).values).norm(dim=1)
    kept = distances.argsort().argsort() < n - n_malicious
    weights = kept * prior.to(updates)  # equal, or lifted
    weights = weights / weights.sum()
    return Aggregate(weights @ updates, weights, suspicion=distances)
