"""Balanced empirical risk minimisation: classes, or groups, are equally likely to be drawn."""

import torch

from strategies.shapes import Bool, Float, Int, Tensor


def balanced(parts: Int[Tensor, " n"], kept: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return weights that give each part the same sum over the examples that are kept.

    Args:
        parts: Class or group of each example.
        kept: Which examples count.

    References:
        Idrissi et al., Simple data balancing achieves competitive worst-group-accuracy, CLeaR 2022.
    """
    counts = torch.bincount(parts[kept], minlength=int(parts.max()) + 1)
    return 1 / counts.clamp_min(1)[parts].double()
