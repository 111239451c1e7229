"""FLAME: cluster by direction, clip to the median norm, add noise."""

import numpy as np
import torch

from strategies.aggregation.aggregate import (
    Aggregate,
    TooFewClientsError,
    normalised,
    norms_of,
    prior_or_uniform,
    weighted_sum,
)
from strategies.aggregation.distances import cosines
from strategies.aggregation.weak_dp import with_noise
from strategies.shapes import Bool, Float, Tensor


def flame_bound(n: int) -> None:
    """Raise TooFewClientsError if there is nobody to compare with."""
    if n < 2:
        raise TooFewClientsError(f"flame needs n >= 2 clients, got n={n}: sample at least 2")


def flame(
    updates: Float[Tensor, "n d"],
    rng: np.random.Generator,
    noise_factor: float = 1e-3,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Admit the cluster that holds a majority, clip to the median norm, average and add noise.

    HDBSCAN on cosine distances, with clusters of at least ⌊n / 2⌋ + 1, so that there is at most
    one; everybody outside it is rejected, however honest. Cosines are taken between updates; the
    paper's are between the clients' whole models, which a large common part makes all but equal.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        rng: Draws the noise.
        noise_factor: λ; the noise on each parameter has standard deviation λ · median norm. 1e-3:
            the paper (for images) and BackFed; 1.2e-5: FLPoison.
        prior: Weights among the admitted; equal by default.

    Returns:
        The noisy mean of the clipped admitted updates; prior · clipping factor, scaled to sum 1,
        as weights; the mean cosine distance to the admitted as suspicion. Where HDBSCAN finds no
        cluster everybody is admitted, as in the authors' code. The median norm is that of all
        clients, the lower of the two middle ones for even n.

    Raises:
        TooFewClientsError: If n < 2.

    References:
        Nguyen et al., FLAME: Taming Backdoors in Federated Learning, USENIX Security 2022.
    """
    flame_bound(len(updates))
    norms = norms_of(updates)
    median = norms.median()
    distances = 1 - cosines(updates)
    admitted = _majority_cluster(distances.fill_diagonal_(0))
    factors = torch.where(norms > median, median / norms, 1.0)
    shares = normalised(prior_or_uniform(updates, prior) * admitted)
    update = with_noise(weighted_sum(updates, shares * factors), noise_factor * float(median), rng)
    suspicion = distances[:, admitted].mean(dim=1)
    return Aggregate(update, normalised(shares * factors), suspicion)


def _majority_cluster(distances: Float[Tensor, "n n"]) -> Bool[Tensor, " n"]:
    from sklearn.cluster import HDBSCAN  # here, since a bare machine with torch may lack it

    n = len(distances)
    clustering = HDBSCAN(
        min_cluster_size=n // 2 + 1,
        min_samples=1,
        metric="precomputed",
        allow_single_cluster=True,
        copy=True,  # pyright: ignore[reportArgumentType] (its stub says str)
    )
    labels = torch.from_numpy(clustering.fit(distances.cpu().numpy()).labels_).to(distances.device)
    return labels >= 0 if (labels >= 0).any() else torch.ones_like(labels, dtype=torch.bool)
