"""Balanced empirical risk minimisation: classes, or groups, are equally likely to be drawn."""

import torch

from strategies.shapes import Float, Int, Tensor


def balanced(parts: Int[Tensor, " n"], weights: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return factors that give each part the same sum of weights, 1.

    Args:
        parts: Class or group of each example.
        weights: Weight of each example so far, >= 0; 0 where it was removed.

    References:
        Idrissi et al., Simple data balancing achieves competitive worst-group-accuracy, CLeaR 2022.
    """
    sums = torch.bincount(parts, weights)
    return 1 / torch.where(sums > 0, sums, 1.0)[parts]
