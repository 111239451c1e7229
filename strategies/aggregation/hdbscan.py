"""Clusters of clients by HDBSCAN."""

from typing import Any

import torch

from strategies.shapes import Bool, Float, Int, Tensor


def hdbscan(values: Float[Tensor, "n m"], metric: str, **settings: Any) -> Int[Tensor, " n"]:
    """Return the cluster of each row, -1 of outliers.

    Args:
        values: Points, shape (n, m); with the metric ``precomputed`` their distances, (n, n).
        metric: How far two points are from each other.
        settings: Further arguments of scikit-learn's class.
    """
    from sklearn.cluster import HDBSCAN  # here, since a bare machine with torch may lack it

    clustering = HDBSCAN(
        metric=metric,
        copy=True,  # pyright: ignore[reportArgumentType] (its stub says str)
        **settings,
    )
    return torch.from_numpy(clustering.fit(values.cpu().numpy()).labels_).to(values.device)


def largest_cluster(distances: Float[Tensor, "n n"], min_cluster_size: int) -> Bool[Tensor, " n"]:
    """Mark the rows of the largest cluster that single linkage finds; there is at least one.

    Of clusters of equal size, that with the least distances within it is taken, then that of the
    lowest row.

    Args:
        distances: From each row to each other, 0 on the diagonal, shape (n, n).
        min_cluster_size: The fewest rows of a cluster, at most n.
    """
    here = distances.cpu()
    labels = hdbscan(
        here,
        "precomputed",
        min_cluster_size=min_cluster_size,
        min_samples=1,
        allow_single_cluster=True,
    )
    clusters = [labels == label for label in labels.unique() if label >= 0]

    def rank(cluster: Bool[Tensor, " n"]) -> tuple[int, float, int]:
        rows = cluster.nonzero().flatten()
        return -len(rows), float(here[rows][:, rows].sum()), int(rows[0])

    return min(clusters, key=rank).to(distances.device)
