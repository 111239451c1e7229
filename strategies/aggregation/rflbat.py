"""RFLBAT: outliers and clusters among the two principal components of updates."""

import numpy as np
import torch

from strategies.aggregation.aggregate import Aggregate, mean_of_selected
from strategies.aggregation.distances import cosines, gram_in_float64
from strategies.aggregation.traits import Traits
from strategies.shapes import Float, Tensor

MOST_CLUSTERS = 10
N_REFERENCES = 20  # uniform samples that the gap statistic compares with
N_STEPS = 100  # of k-means at most, which takes a few
NOISE = 1e-12  # of the largest variance, or of the squares around one centre: less is rounding


@Traits(selects=True, compares_pairs=True)
def rflbat(
    updates: Float[Tensor, "n d"],
    rng: np.random.Generator,
    first_limit: float = 10.0,
    second_limit: float = 4.0,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Average the cluster of principal components whose updates are least alike.

    Updates are projected on their first two principal components. Clients too far from all others
    there are dropped; k-means splits the rest into as many clusters as the gap statistic sees; one
    cluster is chosen, and clients too far from the rest of it are dropped as well. Attackers, who
    share a goal, are assumed to be alike: the chosen cluster has the least median, over its
    clients, of their mean cosine with all of it. A minority that is a cluster of its own is alike
    as well, and is dropped with them.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        rng: Draws the gap statistic's references.
        first_limit: ε₁: the largest ratio allowed of a client's summed distance to the others to
            the median of all clients'; 10 in 3DFed and BackFed.
        second_limit: ε₂, the same within the cluster; 4 in both.
        prior: Weights among those kept; equal by default.

    Returns:
        update: The mean of those kept.
        weights: Equal among those kept, or in proportion to their prior.
        suspicion: How many of the three steps the client did not pass: 3 for clients dropped in the
            first.

    Bound:
        None is checked, nor could be. A huge update stands out by its summed distance only among
        more than ε₁ + 1 clients, and within its cluster only among more than ε₂ + 1; where only one
        cluster is seen, the rule is two tests for outliers.

    Ties:
        A cluster of one client counts as perfectly alike. Of equally alike clusters the largest is
        chosen, then that of the lowest row. A client exactly at a limit is kept.

    Variants:
        3DFed's code, BackFed and this compare all parameters; for ResNets 3DFed takes the last
        block and layer. Both start k-means at random; here it starts from Ward's clusters, and
        nothing depends on the order of clients. BackFed's components are approximate
        (``pca_lowrank``), which changed 7 of 60 choices. For the gap statistic both scale the
        components to [0, 1], add up distances in place of squares and draw 5 references, not 20;
        3DFed's adds for each client the distance of one in its cluster and tests with s(k) for
        s(k + 1), and newer BackFed always makes two clusters.

    References:
        Wang et al., RFLBAT: A Robust Federated Learning Algorithm against Backdoor Attack,
        arXiv:2201.03772, 2022.
        Tibshirani et al., Estimating the Number of Clusters in a Data Set via the Gap Statistic,
        Journal of the Royal Statistical Society B, 2001.
    """
    points = _principal_components(updates)
    passed = np.zeros(len(points))
    left = np.flatnonzero(_within(points, first_limit))
    passed[left] += 1
    labels = _clusters(points[left], rng)
    if labels.any():
        left = left[_least_alike(cosines(updates).cpu().numpy()[np.ix_(left, left)], labels)]
    passed[left] += 1
    left = left[_within(points[left], second_limit)]
    passed[left] += 1
    steps = torch.from_numpy(passed).to(updates.device)
    return mean_of_selected(updates, steps == 3, prior, 3 - steps)


def _principal_components(updates: Float[Tensor, "n d"]) -> Float[np.ndarray, "n c"]:
    """Return each row's coordinates on the two: up to signs, whatever the order of rows."""
    gram = gram_in_float64(updates, centred=True).cpu()
    values, vectors = torch.linalg.eigh(gram / gram.diagonal().max().clamp(min=1e-300))
    lengths = torch.where(values > NOISE * values[-1], values, 0.0).sqrt()
    points = (vectors * lengths)[:, -2:].numpy()
    return np.round(points / max(np.abs(points).max(), 1e-300), 12)  # beside a giant all are equal


def _within(points: Float[np.ndarray, "n c"], limit: float) -> np.ndarray:
    from scipy.spatial.distance import cdist  # here, since a bare machine with torch may lack it

    summed = cdist(points, points).sum(axis=1)
    return summed <= limit * np.median(summed)


def _least_alike(similarity: Float[np.ndarray, "n n"], labels: np.ndarray) -> np.ndarray:
    """Mark the cluster whose median of mean similarities is least."""
    scores = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        means = similarity[np.ix_(own, own)].mean(axis=1)
        score = 1.0 if len(own) == 1 else float(np.median(means))
        scores.append((round(score, 9), -len(own), own[0], label))
    return labels == min(scores)[-1]


def _clusters(points: Float[np.ndarray, "n c"], rng: np.random.Generator) -> np.ndarray:
    """Cluster by k-means, with the least k for which Gap(k) >= Gap(k + 1) - s(k + 1).

    Gap(k) is by how much the logarithm of the squares within k clusters falls short of that of
    samples that are uniform in a box as large as the one around the points.
    """
    from scipy.cluster.hierarchy import linkage

    n, box = len(points), np.ptp(points, axis=0)
    labels, gap = np.zeros(n, dtype=int), -np.inf
    if not box.any():
        return labels
    samples = [points, *(box * rng.random((N_REFERENCES, n, len(box))))]
    trees = [linkage(sample, "ward") for sample in samples]
    for k in range(1, MOST_CLUSTERS + 1):  # never n: Gap(n), of noise alone, is Gap(1)
        found = [_k_means(sample, tree, k) for sample, tree in zip(samples, trees, strict=True)]
        logs = np.log([spread for _, spread in found])
        next_gap, error = logs[1:].mean() - logs[0], logs[1:].std() * (1 + 1 / N_REFERENCES) ** 0.5
        if gap >= next_gap - error:
            break
        labels, gap = found[0][0], next_gap
    return labels


def _k_means(
    points: Float[np.ndarray, "n c"], tree: np.ndarray, k: int
) -> tuple[np.ndarray, float]:
    """Return labels, from 0, and the sum of squares around centres, starting from a tree's k
    clusters."""
    from scipy.cluster.hierarchy import fcluster
    from scipy.spatial.distance import cdist

    labels, spread = fcluster(tree, k, "maxclust"), 0.0
    for _ in range(N_STEPS):
        kinds, labels = np.unique(labels, return_inverse=True)
        centres = np.stack([points[labels == kind].mean(axis=0) for kind in range(len(kinds))])
        squares = cdist(points, centres, "sqeuclidean")
        nearest, spread = squares.argmin(axis=1), squares.min(axis=1).sum()
        if (nearest == labels).all():
            break
        labels = nearest
    return labels, max(spread, NOISE * np.square(points - points.mean(axis=0)).sum())
