"""Loss filter: drop the examples that a model trained on everything fits worst."""

import torch

from strategies.shapes import Bool, Float, Int, Tensor


def largest(
    scores: Float[Tensor, " n"],
    kept: Bool[Tensor, " n"],
    fraction: float,
    labels: Int[Tensor, " n"] | None = None,
) -> Bool[Tensor, " n"]:
    """Mark the share of examples with the largest scores.

    Args:
        scores: Of each example; a loss filter's are minus the confidences I(x)_y.
        kept: Which examples are still there; only these are ranked.
        fraction: Share of the kept that is marked, rounded to examples; a tie goes to the first.
        labels: If given, the share is taken of each class by itself.
    """
    marked = torch.zeros_like(kept)
    parts = torch.zeros(len(kept), dtype=torch.int64) if labels is None else labels
    for part in parts.unique().tolist():
        rows = (kept & (parts == part)).nonzero().squeeze(1)
        order = scores[rows].argsort(descending=True, stable=True)
        marked[rows[order[: round(fraction * len(rows))]]] = True
    return marked
