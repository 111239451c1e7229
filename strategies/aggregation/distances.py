"""Pairwise distances of updates that stay exact however unequal the updates are."""

import torch

from strategies.aggregation.aggregate import column_blocks, norms_of
from strategies.shapes import Bool, Float, Int, Tensor

CANCELLATION = 1e-2  # below this share of the two squared norms, a difference has lost 2 digits


def squared_distances(updates: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """Return the squared L2 distance of every pair of rows, in float64.

    One row is subtracted from all before the Gram matrix, so that a part common to all clients
    costs no digits. The row is the one of median norm, never the mean: a single attacker of size
    100 would move the mean away from honest updates of size 1e-3 and ruin their distances.
    Rows much closer to each other than to that row are grouped around one of themselves and
    measured again, until no pair is left that has lost digits.

    Args:
        updates: One row per client, shape (n, d), finite.
    """
    norms = norms_of(updates)
    middle = int(norms.argsort(stable=True)[len(norms) // 2])
    everyone = torch.arange(len(updates), device=updates.device)
    distances, blurred = _distances_around(updates, everyone, middle, norms)
    while blurred.any():
        centre = int(blurred.sum(dim=1).argmax())
        group = torch.cat([blurred[centre].nonzero().squeeze(1), everyone[centre, None]])
        pairs = group[:, None], group[None, :]
        closer, still_blurred = _distances_around(updates, group, centre, norms)
        # A pair that was sharp before stays as it was: seen from here it may be worse.
        distances[pairs] = torch.where(blurred[pairs], closer, distances[pairs])
        blurred[pairs] &= still_blurred
    return distances


def _distances_around(
    updates: Float[Tensor, "n d"], rows: Int[Tensor, " m"], centre: int, norms: Float[Tensor, " n"]
) -> tuple[Float[Tensor, "m m"], Bool[Tensor, "m m"]]:
    """Return the rows' squared distances seen from one row, and which of them lost digits."""
    # Powers of two bring every centred row to norm <= 1 without rounding: no square overflows.
    exponents = torch.frexp((norms[rows] + norms[centre]).clamp(min=1e-37)).exponent
    scales = torch.ldexp(torch.ones_like(norms[rows]), exponents)
    shrink = (1 / scales).to(updates.dtype)[:, None]
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=updates.device)
    whole = len(rows) == len(updates)
    for columns in column_blocks(updates):
        block = updates[:, columns] if whole else updates[rows, columns]
        block = torch.addcmul(block * shrink, updates[centre, columns], shrink, value=-1)
        gram += (block @ block.T).double()
    gram *= scales[:, None] * scales[None, :]
    squares = gram.diagonal()
    sums = squares[:, None] + squares[None, :]
    distances = (sums - gram - gram.T).clamp_(min=0).fill_diagonal_(0)
    blurred = (distances < CANCELLATION * sums).fill_diagonal_(False)
    return distances, blurred & (rows != centre)[:, None] & (rows != centre)[None, :]
