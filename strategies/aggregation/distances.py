"""Pairwise distances of updates that stay exact however unequal the updates are."""

import torch

from strategies.aggregation.aggregate import COLUMN_BLOCK
from strategies.shapes import Float, Tensor

CANCELLATION = 1e-3  # below this share of the two squared norms, a difference has lost 3 digits


def squared_distances(updates: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """Return the squared L2 distance of every pair of rows, in float64.

    One row is subtracted from all before the Gram matrix, so that a part common to all clients
    costs no digits. The row is the one of median norm, never the mean: a single attacker of size
    100 would move the mean away from honest updates of size 1e-3 and ruin their distances.
    Pairs much closer to each other than to that row are computed again, directly.

    Args:
        updates: One row per client, shape (n, d), finite.
    """
    norms = torch.linalg.vector_norm(updates, dim=1)
    centre = updates[norms.argsort(stable=True)[len(norms) // 2]]
    gram = torch.zeros(len(updates), len(updates), dtype=torch.float64, device=updates.device)
    for start in range(0, updates.shape[1], COLUMN_BLOCK):
        block = updates[:, start : start + COLUMN_BLOCK] - centre[start : start + COLUMN_BLOCK]
        gram += (block @ block.T).double()
    squares = gram.diagonal()
    sums = squares[:, None] + squares[None, :]
    distances = (sums - gram - gram.T).clamp_(min=0)
    for i, j in (distances < CANCELLATION * sums).triu(diagonal=1).nonzero().tolist():
        distances[i, j] = distances[j, i] = _squared_distance(updates[i], updates[j])
    return distances.fill_diagonal_(0)


def _squared_distance(a: Float[Tensor, " d"], b: Float[Tensor, " d"]) -> Float[Tensor, ""]:
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    for start in range(0, len(a), COLUMN_BLOCK):
        gap = a[start : start + COLUMN_BLOCK].double() - b[start : start + COLUMN_BLOCK]
        total += gap @ gap
    return total
