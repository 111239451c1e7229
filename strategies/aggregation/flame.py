"""FLAME: cluster by direction, clip to the median norm, add noise."""

import numpy as np

from strategies.aggregation.aggregate import Aggregate, normalised, norms_of, prior_or_uniform
from strategies.aggregation.distances import cosine_distances
from strategies.aggregation.hdbscan import largest_cluster
from strategies.aggregation.norm_clipping import mean_of_clipped
from strategies.aggregation.traits import Bound, Traits
from strategies.aggregation.weak_dp import with_noise
from strategies.shapes import Float, Tensor

flame_bound = Bound("flame", 0, 2)


@Traits(bound=flame_bound, selects=True, compares_pairs=True)
def flame(
    updates: Float[Tensor, "n d"],
    rng: np.random.Generator,
    received: Float[Tensor, " d"] | None = None,
    noise_factor: float = 1e-3,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Admit the cluster that holds a majority, clip to the median norm, average and add noise.

    HDBSCAN on cosine distances, with clusters of at least ⌊n / 2⌋ + 1 clients, finds exactly one:
    the first group of that size as clients are joined by increasing distance (single linkage).
    Everybody outside it is rejected, however honest: of 20 clients that differ by chance alone,
    eight or nine on average, and one less where updates are compared.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        rng: Draws the noise.
        received: The model that the updates were made from, shape (d,). If given, whole models are
            compared, as in the paper; without it, the updates themselves.
        noise_factor: λ; the noise on each parameter has standard deviation λ · median norm.
        prior: Weights among the admitted; equal by default.

    Returns:
        update: The noisy mean of the clipped admitted updates, in proportion to their prior.
        weights: prior · clipping factor, scaled to sum 1; 0 for those rejected.
        suspicion: The mean cosine distance to the admitted.

    Bound:
        n >= 2, else TooFewClientsError: there must be somebody to compare with. The majority must
        be honest.

    Ties:
        Clients joined at exactly the same computed distance are admitted together; rounding may
        make the distances of updates along one line differ by 1e-7. The median norm is that of all
        clients, the lower of the two middle ones for even n.

    Variants:
        With whole models, as in the paper and FLPoison, lengths of updates count as well as
        directions; the clients admitted often differ from those that cosines of updates would
        admit. BackFed intends to compare the last layers of models, but compares the received one
        with itself. λ is 1e-3 in the paper (for images) and in BackFed, 1.2e-5 in FLPoison, and
        both multiply it by each layer's standard deviation.

    References:
        Nguyen et al., FLAME: Taming Backdoors in Federated Learning, USENIX Security 2022.
    """
    flame_bound(len(updates))
    norms = norms_of(updates)
    median = norms.median()
    distances = cosine_distances(updates, received)
    admitted = largest_cluster(distances, len(updates) // 2 + 1)
    heard = normalised(prior_or_uniform(updates, prior) * admitted)
    suspicion = distances[:, admitted].mean(dim=1)
    clipped = mean_of_clipped(updates, norms, median, heard, suspicion)
    noisy = with_noise(clipped.update, noise_factor * float(median), rng)
    return clipped._replace(update=noisy)
