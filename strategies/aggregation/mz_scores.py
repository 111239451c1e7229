"""MZ-scores: how unusual values are, by their median and standard deviation."""

import torch

from strategies.aggregation.norm_clipping import median_of
from strategies.shapes import Float, Tensor

ROUNDING = 1e-6  # what values of order 1 that are equal may differ by in float32
BORDER = 1e-9  # with two clients, or two camps of equal size, each is exactly one deviation away


def mz_scores(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return how many standard deviations each value, of order 1, is away from the median."""
    gaps = (values - median_of(values)).abs()
    return torch.where(gaps > ROUNDING, gaps / values.std(correction=0), 0.0)
