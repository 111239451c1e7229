"""Krum and Multi-Krum: trust the updates with the tightest neighbourhoods."""

import torch

from strategies.aggregation.aggregate import Aggregate, TooFewClientsError, mean_of_selected
from strategies.aggregation.distances import squared_distances
from strategies.shapes import Bool, Float, Int, Tensor


def krum_bound(n: int, n_malicious: int, rule: str = "krum") -> None:
    """Raise TooFewClientsError if n < 2f + 3, below which Krum's guarantee does not hold."""
    if n < 2 * n_malicious + 3:
        raise TooFewClientsError(
            f"{rule} needs n >= 2f + 3 clients, got n={n} and f={n_malicious}: "
            f"sample at least {2 * n_malicious + 3} clients or lower n_malicious"
        )


def multi_krum_bound(n: int, n_malicious: int, n_selected: int | None = None) -> None:
    """Raise TooFewClientsError if Krum's bound fails or if fewer than n_selected clients came."""
    krum_bound(n, n_malicious, "multi_krum")
    if n_selected is not None and n_selected > n:
        raise TooFewClientsError(
            f"multi_krum cannot select n_selected={n_selected} of n={n} clients: "
            f"lower n_selected, or leave it out for n - f = {n - n_malicious}"
        )


def krum_scores(updates: Float[Tensor, "n d"], n_malicious: int) -> Float[Tensor, " n"]:
    """Return each client's sum of squared L2 distances to its n - f - 2 nearest neighbours."""
    return _scores(squared_distances(updates), n_malicious)  # exact however large one row is


def krum_order(
    distances: Float[Tensor, "n n"], n_malicious: int, n_chosen: int
) -> Int[Tensor, " n"]:
    """Choose rows by Krum one after the other, each time among those not chosen yet.

    Returns:
        All rows: the first ``n_chosen`` in the order of their choice, then the others by their
        last score. Of equal scores (two rows that are each other's only neighbour have them) the
        one closer to all that are left comes first, then the lowest row.
    """
    left = torch.arange(len(distances), device=distances.device)
    chosen = []
    for _ in range(n_chosen):
        best = left[_by_score(distances[left][:, left], n_malicious)[:1]]
        chosen.append(best)
        left = left[left != best]
    return torch.cat([*chosen, left[_by_score(distances[left][:, left], n_malicious)]])


def _by_score(distances: Float[Tensor, "n n"], n_malicious: int) -> Int[Tensor, " n"]:
    by_total = distances.sum(dim=1).argsort(stable=True)
    return by_total[_scores(distances, n_malicious)[by_total].argsort(stable=True)]


def _scores(distances: Float[Tensor, "n n"], n_malicious: int) -> Float[Tensor, " n"]:
    distances = distances.clone().fill_diagonal_(torch.inf)
    # Repeated choices may leave fewer than f + 3 rows: one neighbour is the least there can be.
    n_neighbours = min(max(len(distances) - n_malicious - 2, 1), len(distances))
    return distances.topk(n_neighbours, largest=False).values.sum(dim=1)


def lowest(scores: Float[Tensor, " n"], count: int) -> Bool[Tensor, " n"]:
    """Mark the ``count`` lowest scores; of equal ones the lowest rows."""
    marked = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    marked[scores.argsort(stable=True)[:count]] = True
    return marked


def krum(
    updates: Float[Tensor, "n d"], n_malicious: int, prior: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Select the one update closest to its n - f - 2 nearest neighbours.

    A client's score is the sum of squared L2 distances to those neighbours, itself excluded. The
    lowest score wins; a tie goes to the lowest row. ByzFL takes n - f - 1 neighbours and FLPoison
    sums unsquared distances: both differ from the paper, which is followed here.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: The bound f the defence assumes; the true count may differ.
        prior: Has no effect on a single choice, except that a client of prior 0 adds nothing.

    Returns:
        The chosen update, weights one-hot on its client, and the scores as suspicion.

    Raises:
        TooFewClientsError: If n < 2f + 3, below which the guarantee does not hold.

    References:
        Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient
        Descent, NeurIPS 2017.
    """
    krum_bound(len(updates), n_malicious)
    scores = krum_scores(updates, n_malicious)
    return mean_of_selected(updates, lowest(scores, 1), prior, scores)


def multi_krum(
    updates: Float[Tensor, "n d"],
    n_malicious: int,
    n_selected: int | None = None,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Average the m updates with the lowest Krum scores, scored once (the one-shot variant).

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: The bound f the defence assumes; the true count may differ.
        n_selected: The number m of clients to average; n - f by default, as ByzFL and BackFed
            do. Flower and fedlib default to 1, which is Krum.
        prior: Weights among the selected; equal by default.

    Returns:
        The mean of the selected, their weights, and the Krum scores as suspicion. Ties go to the
        lowest rows.

    Raises:
        TooFewClientsError: If n < 2f + 3 or n < m.

    References:
        Blanchard et al., NeurIPS 2017, section 5 (m-Krum).
    """
    multi_krum_bound(len(updates), n_malicious, n_selected)
    scores = krum_scores(updates, n_malicious)
    n_selected = len(updates) - n_malicious if n_selected is None else n_selected
    return mean_of_selected(updates, lowest(scores, n_selected), prior, scores)


def iterative_multi_krum(
    updates: Float[Tensor, "n d"], n_malicious: int, prior: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Choose by Krum and set aside, again and again while more than 2f + 2 remain; average those.

    The other variant of Multi-Krum: each choice scores the remaining updates anew. It averages
    n - 2f - 2 updates, the one-shot :func:`multi_krum` n - f.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: The bound f the defence assumes; the true count may differ.
        prior: Weights among the chosen; equal by default.

    Returns:
        The mean of the chosen, their weights, and as suspicion the place in the order of choice
        (those never chosen follow by their last score). Of equal scores the update closer to all
        that are left comes first, then the lowest row.

    Raises:
        TooFewClientsError: If n < 2f + 3.

    References:
        Shejwalkar and Houmansadr, Manipulating the Byzantine, NDSS 2021, whose code counts the
        update itself (distance 0) among the n - f - 2 neighbours, here as in Krum's paper it is
        not.
    """
    n = len(updates)
    krum_bound(n, n_malicious, "iterative_multi_krum")
    n_chosen = n - 2 * n_malicious - 2
    place = krum_order(squared_distances(updates), n_malicious, n_chosen).argsort()
    return mean_of_selected(updates, place < n_chosen, prior, place.double())
