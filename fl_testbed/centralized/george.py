"""GEORGE: clusters within each class stand in for groups that nobody annotated."""

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_samples
from sklearn.mixture import GaussianMixture

from strategies.shapes import Bool, Float, Int, Tensor

SILHOUETTE_EXAMPLES = 800  # drawn from a class: silhouettes need all pairwise distances


def hardness(
    features: Float[Tensor, "n features"],
    weights: Float[Tensor, "classes features"],
    labels: Int[Tensor, " n"],
) -> Float[Tensor, "n 1"]:
    """Project features on the direction in which the output layer's weights tell classes apart.

    With two classes the direction is w₁ - w₀, of unit length; with more, it is for each example
    the weights of its own class less the mean of the others' (our extension: the authors' release
    handles two classes).
    """
    others = (weights.sum(dim=0) - weights) / (len(weights) - 1)
    directions = F.normalize(weights - others, dim=1)
    if len(weights) == 2:
        return (features @ directions[1])[:, None]
    return (features * directions[labels]).sum(dim=1, keepdim=True)


def clusters_within_classes(
    points: Float[Tensor, "n axes"],
    labels: Int[Tensor, " n"],
    kept: Bool[Tensor, " n"],
    max_clusters: int,
    rng: np.random.Generator,
) -> Int[Tensor, " n"]:
    """Cluster each class by a Gaussian mixture; cluster numbers run on from class to class.

    The number of clusters, from 2 up, is the one with the largest mean over clusters of their mean
    silhouette. Examples that are not kept get the cluster they would fall into.

    Args:
        points: Reduced features.
        labels: The classes.
        kept: Which examples the mixtures are fitted on.
        max_clusters: Most clusters in a class (10 in the release).
        rng: Draws the mixtures' starts and the examples that silhouettes are computed on.

    References:
        Sohoni et al., No Subclass Left Behind, NeurIPS 2020. This is its variant for Waterbirds;
        for CelebA it over-clusters by k-means and merges clusters that are not harder than the
        class.
    """
    clusters = torch.zeros(len(labels), dtype=torch.int64)
    first = 0
    for label in labels.unique().tolist():
        members = labels == label
        own = points[members & kept].double().numpy()
        best, best_score = np.zeros(int(members.sum()), dtype=np.int64), -np.inf
        for n_clusters in range(2, min(max_clusters, len(own) - 1) + 1):
            mixture = GaussianMixture(n_clusters, random_state=int(rng.integers(2**31)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                found = mixture.fit(own).predict(own)
            score = _mean_silhouette(own, found, rng)
            if score > best_score:
                best, best_score = mixture.predict(points[members].double().numpy()), score
        clusters[members] = torch.from_numpy(best.astype(np.int64)) + first
        first = int(clusters[members].max()) + 1
    return clusters


def _mean_silhouette(points: np.ndarray, clusters: np.ndarray, rng: np.random.Generator) -> float:
    rows = rng.permutation(len(points))[:SILHOUETTE_EXAMPLES]
    points, clusters = points[rows], clusters[rows]
    present = np.unique(clusters)
    if not 2 <= len(present) < len(points):
        return -np.inf
    values = silhouette_samples(points, clusters)
    return float(np.mean([values[clusters == cluster].mean() for cluster in present]))


def smaller_clusters(
    clusters: Int[Tensor, " n"], labels: Int[Tensor, " n"], kept: Bool[Tensor, " n"]
) -> Bool[Tensor, " n"]:
    """Mark what GEORGE lifts: examples of clusters smaller than the mean cluster of their class."""
    sizes = torch.bincount(clusters[kept], minlength=int(clusters.max()) + 1).double()
    lifted = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = labels == label
        own = clusters[members & kept].unique()
        lifted |= members & (sizes[clusters] < sizes[own].mean())
    return lifted


def marked_within_classes(
    marked: Bool[Tensor, " n"], labels: Int[Tensor, " n"]
) -> Int[Tensor, " n"]:
    """Return groups that set marked examples of each class apart, as a perfect identifier would."""
    return 2 * labels + marked.long()
