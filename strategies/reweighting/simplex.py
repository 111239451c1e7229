"""The Euclidean projection onto a simplex."""

import torch

from strategies.shapes import Float, Tensor


def project_to_simplex(values: Float[Tensor, " n"], mass: float = 1.0) -> Float[Tensor, " n"]:
    """Return the nearest point whose entries are >= 0 and sum to ``mass``.

    One threshold is subtracted from all entries, and negative results become 0.

    References:
        Duchi et al., Efficient Projections onto the l1-Ball, ICML 2008.
    """
    # Relative to the largest entry: one of 1e38 would swallow the mass.
    shifted = values - values.max()
    descending = shifted.sort(descending=True).values
    ranks = torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device)
    thresholds = (descending.cumsum(dim=0) - mass) / ranks
    threshold = thresholds[(descending > thresholds).sum() - 1]
    return (shifted - threshold).clamp(min=0)
