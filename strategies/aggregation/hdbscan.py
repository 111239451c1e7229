"""Clusters of clients by HDBSCAN."""

from typing import Any

import torch

from strategies.shapes import Float, Int, Tensor


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
