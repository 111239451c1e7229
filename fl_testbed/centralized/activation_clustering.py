"""Activation clustering: two clusters in a class, of which the smaller is suspect."""

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from strategies.shapes import Bool, Float, Int, Tensor


def smaller_activation_cluster(
    features: Float[Tensor, "n features"],
    labels: Int[Tensor, " n"],
    kept: Bool[Tensor, " n"],
    max_share: float,
    n_axes: int,
    rng: np.random.Generator,
) -> Bool[Tensor, " n"]:
    """Split each class in two by k-means and mark the smaller part, if it is small enough.

    Args:
        features: Inputs of the output layer.
        labels: The given labels.
        kept: Which examples are clustered.
        max_share: A part larger than this share of its class is not marked (0.35 in ART).
        n_axes: Principal axes that are kept (10; the paper takes independent components).
        rng: Draws the first centres.

    References:
        Chen et al., Detecting Backdoor Attacks on Deep Neural Networks by Activation Clustering,
        2018.
    """
    marked = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        rows = (kept & (labels == label)).nonzero().squeeze(1)
        if len(rows) <= n_axes:
            continue
        points = features[rows].double().numpy()
        if (points == points[0]).all():  # all units of the layer are dead
            continue
        axes = PCA(min(n_axes, points.shape[1]), svd_solver="full")
        reduced = axes.fit_transform(points)
        start = int(rng.integers(2**31))
        found = np.asarray(KMeans(2, n_init="auto", random_state=start).fit(reduced).labels_)
        smaller = found == np.bincount(found, minlength=2).argmin()
        if smaller.mean() <= max_share:
            marked[rows[torch.from_numpy(smaller)]] = True
    return marked
