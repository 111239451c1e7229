"""Minimum-diameter averaging (MDA): the n - f updates that lie closest together."""

import torch

from strategies.aggregation.aggregate import Aggregate, mean_of_selected, shared_by_copies
from strategies.aggregation.distances import squared_distances
from strategies.aggregation.traits import Bound, Traits
from strategies.shapes import Bool, Float, Tensor

minimum_diameter_bound = Bound("minimum_diameter", 2, 1)


@Traits(bound=minimum_diameter_bound, selects=True, compares_pairs=True)
def minimum_diameter(
    updates: Float[Tensor, "n d"], n_malicious: int, prior: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Average the subset of n - f updates whose largest pairwise distance is least.

    Exact without trying all subsets: for a diameter t, the clients left out must cover all pairs
    further apart than t, and whether f clients can is decided by branching: either a row goes, or
    all rows too far from it. t is found by bisection. Time grows like 1.5^f in the worst case.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: How many updates f to leave out.
        prior: Weights within the subset; equal by default.

    Returns:
        update: The mean of the subset.
        weights: Equal within the subset, or in proportion to the prior; 0 outside.
        suspicion: The L2 distance to the farthest member of the subset.

    Bound:
        n >= 2f + 1, else TooFewClientsError: attackers alone could form the subset.

    Ties:
        Where fewer than f must go, the highest rows go as well. Of several subsets of the same
        diameter the search takes the one that leaves out the row with most distant pairs, the
        lowest such row first. Copies of a row that stays share its weight.

    Variants:
        ByzFL (MDA) tries all subsets and keeps the first of the least diameter.

    References:
        El Mhamdi et al., The Hidden Vulnerability of Distributed Learning in Byzantium, ICML 2018,
        after Rousseeuw, 1985; named MDA in El Mhamdi et al., Genuinely Distributed Byzantine
        Machine Learning, PODC 2020.
    """
    n = len(updates)
    minimum_diameter_bound(n, n_malicious)
    distances = squared_distances(updates)
    diameters = distances.unique()  # ascending; 0 is among them
    low, high = 0, len(diameters) - 1
    while low < high:
        middle = (low + high) // 2
        if _cover((distances > diameters[middle]).cpu(), n_malicious) is None:
            low = middle + 1
        else:
            high = middle
    left_out = _cover((distances > diameters[low]).cpu(), n_malicious)
    assert left_out is not None  # at the largest distance nobody must go
    kept = torch.ones(n, dtype=torch.bool)
    kept[left_out] = False
    kept[kept.nonzero().squeeze(1)[n - n_malicious :]] = False
    kept = kept.to(updates.device)
    farthest = distances[:, kept].max(dim=1).values.sqrt()
    result = mean_of_selected(updates, kept, prior, farthest)
    return shared_by_copies(result, updates, prior)


def _cover(apart: Bool[Tensor, "n n"], budget: int) -> list[int] | None:
    """Return at most ``budget`` rows that touch every pair marked as apart, or None."""
    degrees = apart.sum(dim=1)
    row = int(degrees.argmax())
    degree = int(degrees[row])
    if degree == 0:
        return []
    if budget == 0 or int(degrees.sum()) > 2 * budget * degree:
        return None  # even the best rows cannot touch that many pairs
    # Either this row goes, or all those that are apart from it.
    for leaving in ([row], apart[row].nonzero().squeeze(1).tolist()):
        if len(leaving) <= budget:
            left = apart.clone()
            left[leaving] = False
            left[:, leaving] = False
            rest = _cover(left, budget - len(leaving))
            if rest is not None:
                return [*leaving, *rest]
    return None
