"""Covariance-bound agnostic filter (CAF): a spectral filter that needs no bound on the spread."""

import torch

from strategies.aggregation.aggregate import Aggregate, mean_of_selected
from strategies.aggregation.distances import centred_gram
from strategies.aggregation.traits import Bound, Traits
from strategies.shapes import Float, Tensor

caf_bound = Bound("caf", 2, 1)


@Traits(bound=caf_bound, compares_pairs=True)
def caf(
    updates: Float[Tensor, "n d"], n_malicious: int, prior: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Fade out clients that stand out in the direction of largest spread; keep the tightest mean.

    Every client begins with c = 1. While Σ c > n - 2f: take the mean and covariance weighted by c,
    note the mean if the covariance's largest eigenvalue is the least so far, and multiply each c by
    1 - τ / max τ, with τ the client's squared projection on the eigenvector. All of this is
    computed on the small (n, n) matrix of inner products.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: The bound f the defence assumes; the true count may differ. 0 gives the mean.
        prior: Multiplies the weights of the mean that is kept; equal by default.

    Returns:
        update: The mean of least spread.
        weights: prior · c of that mean, scaled to sum 1.
        suspicion: 1 - c of that mean.

    Bound:
        n >= 2f + 1, else TooFewClientsError: the filter might run out of weight. Where the first
        fading takes 2f or more off Σ c, the plain mean is the only one noted: with 5 attackers
        among 25 clients (ALIE, z = 1.5) that happened in all of 60 rounds with f = 1, 2 or 3, and
        in 37 with f = 5.

    Ties:
        Of two means of equal spread the earlier is kept.

    Variants:
        The rule is as stated in ByzFL, by the same authors. Its code finds the eigenvector by one
        step of the power method from a random start; here it is exact. Its max τ is over all
        clients; here over those with c > 0, since otherwise one huge update, itself already faded
        out, would keep all others from ever fading.

    References:
        Allouah et al., Towards Trustworthy Federated Learning with Untrusted Participants, ICML
        2025.
    """
    n = len(updates)
    caf_bound(n, n_malicious)
    gram = centred_gram(updates)
    gram = gram / gram.diagonal().max().clamp(min=1e-300)
    confidence = torch.ones(n, dtype=torch.float64, device=updates.device)
    best, least = confidence, torch.inf
    while confidence.sum() > n - 2 * n_malicious:
        spread, projections = _largest_spread(gram, confidence)
        if spread < least:
            best, least = confidence, spread
        if projections.max() <= 0:
            break  # all that are left agree
        confidence = confidence * (1 - projections / projections.max())
    return mean_of_selected(updates, best, prior, 1 - best)


def _largest_spread(
    gram: Float[Tensor, "n n"], confidence: Float[Tensor, " n"]
) -> tuple[float, Float[Tensor, " n"]]:
    """Return the largest eigenvalue of the weighted covariance, and squared projections on it."""
    shares = confidence / confidence.sum()
    to_mean = gram @ shares
    centred = gram - to_mean[:, None] - to_mean[None, :] + shares @ to_mean
    # The covariance Σ s x xᵀ has the eigenvalues of √s xᵀx √s; if y is an eigenvector of that
    # with eigenvalue λ, row i projects to (centred @ (√s y))_i / √λ.
    root = shares.sqrt()
    values, vectors = torch.linalg.eigh(root[:, None] * centred * root[None, :])
    spread = float(values[-1])
    if spread <= 0:
        return 0.0, torch.zeros_like(confidence)
    projections = (centred @ (root * vectors[:, -1])) ** 2 / spread
    return spread, projections * (confidence > 0)
