"""SignGuard: filter by norm, and by how many parameters go up, down or nowhere."""

import numpy as np
import torch

from strategies.aggregation.aggregate import Aggregate, normalised, norms_of, prior_or_uniform
from strategies.aggregation.blocks import column_blocks
from strategies.aggregation.norm_clipping import mean_of_clipped
from strategies.aggregation.traits import Traits
from strategies.shapes import Bool, Float, Int, Tensor


@Traits(selects=True)
def sign_guard(
    updates: Float[Tensor, "n d"],
    rng: np.random.Generator,
    lower: float = 0.1,
    upper: float = 3.0,
    sign_fraction: float = 0.1,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Average clients of usual norm from the largest cluster of sign statistics, clipped.

    The norm filter keeps lower <= norm / median norm <= upper. The sign filter describes each
    client by its shares of positive, zero and negative values among random coordinates, and keeps
    the largest cluster that mean shift finds (bandwidth: the mean distance to the nearest half,
    which is at least the client itself and one other). Survivors are clipped to the median norm.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        rng: Draws the coordinates.
        lower: L, a share of the median norm; 0.1 in the paper.
        upper: R, a multiple of the median norm; 3 in the paper.
        sign_fraction: The share of the coordinates that are drawn; 0.1 in the paper.
        prior: Weights among the survivors; equal by default.

    Returns:
        update: The mean of the clipped survivors in proportion to their prior.
        weights: prior · clipping factor, scaled to sum 1; all 0 where nobody survives.
        suspicion: By how many of the two filters the client was rejected: 0, 1 or 2.

    Bound:
        None is checked: the median norm, which clips everybody, is honest while n >= 2f + 1.

    Ties:
        Of clusters of equal size scikit-learn's first is taken. The median norm is the lower of the
        two middle ones for even n.

    Variants:
        The authors' code divides each share by the largest among clients, looks at one block of
        neighbouring coordinates, begins mean shift at bins of the clients, and filters (strictly)
        by the mean of the two middle norms; FLPoison does the same and clusters by DBSCAN.
        SignGuard-Sim and -Dist have a fourth feature.

    References:
        Xu et al., Byzantine-robust Federated Learning through Collaborative Malicious Gradient
        Filtering, ICDCS 2022.
    """
    d = updates.shape[1]
    norms = norms_of(updates)
    median = norms.median()
    usual = (norms >= lower * median) & (norms <= upper * median)
    n_drawn = max(1, round(sign_fraction * d))
    drawn = torch.from_numpy(np.sort(rng.choice(d, size=n_drawn, replace=False)))
    typical = _largest_cluster(_shares_of_signs(updates, drawn.to(updates.device)))
    heard = normalised(prior_or_uniform(updates, prior) * (usual & typical))
    suspicion = 2.0 - usual.double() - typical.double()
    return mean_of_clipped(updates, norms, median, heard, suspicion)


def _shares_of_signs(
    updates: Float[Tensor, "n d"], drawn: Int[Tensor, " k"]
) -> Float[Tensor, "n 3"]:
    counts = torch.zeros(len(updates), 3, dtype=torch.float64, device=updates.device)
    for columns in column_blocks(updates[:, : len(drawn)]):
        signs = updates[:, drawn[columns]].sign()
        counts += torch.stack([(signs == s).sum(dim=1) for s in (1, 0, -1)], dim=1)
    return counts / len(drawn)


def _largest_cluster(features: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
    from sklearn.cluster import MeanShift, estimate_bandwidth  # a bare machine may lack it

    points = features.cpu().numpy()
    n = len(points)
    # Half of two or three clients would be one, the client itself, and row 0 alone would be kept.
    quantile, wider = (0.5, 1.0) if n > 3 else (min(2 / n, 1.0), 1 + 1e-9)  # two lie just inside
    bandwidth = wider * estimate_bandwidth(points, quantile=quantile)  # of all: nothing is drawn
    if bandwidth < 1e-9:  # each client's statistics are exactly those of half of all
        gaps = torch.cdist(features, features) < 1e-9
        return gaps[gaps.sum(dim=1).argmax()]
    labels = MeanShift(bandwidth=bandwidth, cluster_all=False).fit(points).labels_
    largest = np.bincount(labels[labels >= 0]).argmax()
    return torch.from_numpy(labels == largest).to(features.device)
