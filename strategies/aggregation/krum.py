"""Krum and Multi-Krum: trust the updates with the tightest neighbourhoods."""

import torch

from strategies.aggregation.aggregate import (
    Aggregate,
    TooFewClientsError,
    mean_of_selected,
    shared_by_copies,
    sorted_rows,
)
from strategies.aggregation.distances import squared_distances
from strategies.aggregation.traits import Bound, Traits
from strategies.shapes import Bool, Float, Int, Tensor

krum_bound = Bound("krum", 2, 3)
multi_krum_bound = Bound("multi_krum", 2, 3)
iterative_multi_krum_bound = Bound("iterative_multi_krum", 2, 3)


def check_n_selected(n: int, n_selected: int | None) -> None:
    """Raise TooFewClientsError if fewer clients came than Multi-Krum is to select."""
    if n_selected is not None and n_selected > n:
        raise TooFewClientsError(
            f"multi_krum cannot select n_selected={n_selected} of n={n} clients: "
            "lower n_selected, or leave it out for n - f"
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
        place = _by_score(distances[left[:, None], left], n_malicious)[:1]
        chosen.append(left[place])
        others = torch.arange(len(left) - 1, device=left.device)
        left = left[others + (others >= place)]  # a mask would make the host wait for a GPU
    return torch.cat([*chosen, left[_by_score(distances[left[:, None], left], n_malicious)]])


def _by_score(distances: Float[Tensor, "n n"], n_malicious: int) -> Int[Tensor, " n"]:
    by_total = distances.sum(dim=1).argsort(stable=True)
    return by_total[_scores(distances, n_malicious)[by_total].argsort(stable=True)]


def _scores(distances: Float[Tensor, "n n"], n_malicious: int) -> Float[Tensor, " n"]:
    ordered = sorted_rows(distances.clone().fill_diagonal_(torch.inf))
    # Repeated choices may leave fewer than f + 3 rows: one neighbour is the least there can be.
    n_neighbours = min(max(len(distances) - n_malicious - 2, 1), len(distances))
    return ordered[:, :n_neighbours].sum(dim=1)


def lowest(scores: Float[Tensor, " n"], count: int) -> Bool[Tensor, " n"]:
    """Mark the ``count`` lowest scores; of equal ones the lowest rows."""
    marked = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    marked[scores.argsort(stable=True)[:count]] = True
    return marked


def mean_of_lowest(
    updates: Float[Tensor, "n d"],
    scores: Float[Tensor, " n"],
    count: int,
    prior: Float[Tensor, " n"] | None,
) -> Aggregate:
    """Average the ``count`` rows of the lowest scores; of equal ones the lowest rows, which share
    with their copies."""
    result = mean_of_selected(updates, lowest(scores, count), prior, scores)
    return shared_by_copies(result, updates, prior)


@Traits(bound=krum_bound, selects=True, compares_pairs=True)
def krum(
    updates: Float[Tensor, "n d"], n_malicious: int, prior: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Select the one update closest to its n - f - 2 nearest neighbours.

    A client's score is the sum of squared L2 distances to those neighbours, itself excluded. The
    lowest score wins.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: The bound f the defence assumes; the true count may differ.
        prior: Has no effect on a single choice, except that a client of prior 0 adds nothing.

    Returns:
        update: The chosen update.
        weights: 1 for the chosen client, shared with those who sent an identical update; 0 for
            others.
        suspicion: The scores, in squared parameter units.

    Bound:
        n >= 2f + 3, else TooFewClientsError: below it the guarantee does not hold.

    Ties:
        Of equal scores the lowest row wins; copies of it share its weight.

    Variants:
        fedlib, Flower and BackFed count neighbours and distances as here and in the paper. ByzFL
        averages the squared distances to n - f - 1 neighbours, FLPoison adds up the unsquared ones;
        epfml, the code of bucketing, adds up fourth powers.

    References:
        Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent,
        NeurIPS 2017.
    """
    krum_bound(len(updates), n_malicious)
    scores = krum_scores(updates, n_malicious)
    return mean_of_lowest(updates, scores, 1, prior)


@Traits(bound=multi_krum_bound, selects=True, compares_pairs=True)
def multi_krum(
    updates: Float[Tensor, "n d"],
    n_malicious: int,
    n_selected: int | None = None,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Average the m updates with the lowest Krum scores, scored once (the one-shot variant).

    The scores are those of :func:`krum`: sums of squared L2 distances to n - f - 2 neighbours.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: The bound f the defence assumes; the true count may differ.
        n_selected: The number m of clients to average; n - f by default.
        prior: Weights among the selected; equal by default.

    Returns:
        update: The mean of the selected.
        weights: Equal among the selected, or in proportion to their prior; 0 for all others.
        suspicion: The Krum scores, in squared parameter units.

    Bound:
        n >= 2f + 3, else TooFewClientsError, and n >= m. The proof (AggregaThor, SysML 2019) is for
        m <= n - f - 2.

    Ties:
        Of equal scores the lowest rows are selected; copies of any of them share its weight.

    Variants:
        m is n - f in ByzFL and BackFed, n - f - 2 in AggregaThor and SignGuard's code, a fifth of n
        in FLPoison, and 1, which is Krum, by default in Flower and fedlib. The NDSS 2021 release
        scores again after each choice: :func:`iterative_multi_krum`.

    References:
        Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent,
        NeurIPS 2017, section 5 (m-Krum).
    """
    multi_krum_bound(len(updates), n_malicious)
    check_n_selected(len(updates), n_selected)
    scores = krum_scores(updates, n_malicious)
    n_selected = len(updates) - n_malicious if n_selected is None else n_selected
    return mean_of_lowest(updates, scores, n_selected, prior)


@Traits(bound=iterative_multi_krum_bound, selects=True, compares_pairs=True)
def iterative_multi_krum(
    updates: Float[Tensor, "n d"], n_malicious: int, prior: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Choose updates one by one by Krum, while more than 2f + 2 remain; average those chosen.

    The other variant of Multi-Krum: each choice scores the remaining updates anew. It averages n -
    2f - 2 updates, the one-shot :func:`multi_krum` n - f.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: The bound f the defence assumes; the true count may differ.
        prior: Weights among the chosen; equal by default.

    Returns:
        update: The mean of the chosen.
        weights: Equal among the chosen, or in proportion to their prior, shared with those who sent
            an identical update; 0 for all others.
        suspicion: The place in the order of choice, from 0; those never chosen follow by their last
            score. Copies have the mean of their places.

    Bound:
        n >= 2f + 3, else TooFewClientsError.

    Ties:
        Of equal scores the update closer to all that are left comes first, then the lowest row;
        copies of it share its weight.

    Variants:
        The authors' code counts the update itself (distance 0) among the n - f - 2 neighbours;
        here, as in Krum's paper, it is not.

    References:
        Shejwalkar and Houmansadr, Manipulating the Byzantine: Optimizing Model Poisoning Attacks
        and Defenses for Federated Learning, NDSS 2021 (its released code).
    """
    n = len(updates)
    iterative_multi_krum_bound(n, n_malicious)
    n_chosen = n - 2 * n_malicious - 2
    place = krum_order(squared_distances(updates), n_malicious, n_chosen).argsort()
    result = mean_of_selected(updates, place < n_chosen, prior, place.double())
    return shared_by_copies(result, updates, prior)
