"""EPIc: drop examples that stand alone in gradient space, again and again while training."""

import torch

from strategies.shapes import Bool, Float, Int, Tensor

CHUNK = 512  # candidates whose gains are computed at once


def gradient_proxies(
    logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]
) -> Float[Tensor, "n classes"]:
    """Return softmax(f(x)) - onehot(y), the gradient of the loss in the logits."""
    proxies = logits.softmax(dim=1)
    proxies[torch.arange(len(labels)), labels] -= 1
    return proxies


def medoids(points: Float[Tensor, "n axes"], n_medoids: int) -> Int[Tensor, " m"]:
    """Choose points by greedy facility location: each adds most to Σᵢ max over chosen of s(i, j).

    s is the largest distance less the Euclidean distance. The gains are submodular, so that those
    of earlier rounds bound those of this one, and only candidates at the top are computed anew
    (Minoux). A tie goes to the lowest row.
    """
    chunks = torch.arange(len(points)).split(CHUNK)
    farthest = max(float(_distances(points[rows], points).max()) for rows in chunks)

    def similarity(rows: Int[Tensor, " c"]) -> Float[Tensor, "c n"]:
        return farthest - _distances(points[rows], points)

    bounds = torch.cat([similarity(rows).sum(dim=1) for rows in chunks])
    reached = torch.zeros(len(points))
    chosen: list[int] = []
    while len(chosen) < min(n_medoids, len(points)):
        fresh = torch.zeros(len(points), dtype=torch.bool)
        width = 8
        while not fresh[best := int(bounds.argmax())]:
            top = bounds.topk(min(width, len(points))).indices
            stale = top[~fresh[top]]
            bounds[stale] = (similarity(stale) - reached).clamp_min(0).sum(dim=1)
            fresh[stale] = True
            width = min(2 * width, CHUNK)
        chosen.append(best)
        reached = torch.maximum(reached, similarity(torch.tensor([best]))[0])
        bounds[best] = -1.0  # below every gain
    return torch.tensor(chosen)


def _distances(some: Float[Tensor, "c axes"], points: Float[Tensor, "n axes"]) -> Tensor:
    # Expanding the norm would be faster, but it rounds off the small distances, which decide here.
    return torch.cdist(some, points, compute_mode="donot_use_mm_for_euclid_dist")


def isolated(
    proxies: Float[Tensor, "n classes"],
    labels: Int[Tensor, " n"],
    kept: Bool[Tensor, " n"],
    share: float,
    max_cluster: int = 1,
) -> Bool[Tensor, " n"]:
    """Mark medoids that are nearest to no example but themselves, or to hardly any other.

    The authors' code differs: it clusters all examples each time, even those that it has dropped,
    so that later drops are fewer; and its library measures similarity by exp(-distance / classes).

    Args:
        proxies: Gradient proxies, as from :func:`gradient_proxies`.
        labels: The given labels; medoids are chosen within each class.
        kept: Which examples are still there.
        share: Share of a class that become medoids; every example joins its nearest medoid.
        max_cluster: All examples of clusters up to this size are marked.

    References:
        Yang, Liu and Mirzasoleiman, Not All Poisons are Created Equal, ICML 2022.
    """
    marked = torch.zeros_like(kept)
    for label in labels.unique().tolist():
        rows = (kept & (labels == label)).nonzero().squeeze(1)
        if len(rows) < 2:
            continue
        points = proxies[rows].float()
        centres = medoids(points, max(1, round(share * len(rows))))
        nearest = torch.cat(
            [_distances(part, points[centres]).argmin(dim=1) for part in points.split(CHUNK)]
        )
        sizes = torch.bincount(nearest)
        marked[rows[sizes[nearest] <= max_cluster]] = True
    return marked
