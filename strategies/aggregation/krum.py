"""Krum and Multi-Krum: trust the updates with the tightest neighbourhoods."""

import torch

from strategies.aggregation.aggregate import Aggregate, TooFewClientsError, mean_of_selected
from strategies.aggregation.distances import squared_distances
from strategies.shapes import Bool, Float, Tensor


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
    distances = squared_distances(updates)  # exact however large one row is
    distances.fill_diagonal_(torch.inf)
    n_neighbours = len(updates) - n_malicious - 2
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
    """Average the m updates with the lowest Krum scores, scored once.

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
