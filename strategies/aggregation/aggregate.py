"""What every aggregation rule returns, and the two sums that most of them end in."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from strategies.shapes import Bool, Float, Tensor

COLUMN_BLOCK = 16_384  # columns worked on at a time: 100 rows of them stay in a core's cache


class Aggregate(NamedTuple):
    """What a rule decided, whom it listened to and whom it suspected."""

    update: Float[Tensor, " d"]
    """Combined update, in parameter units: the server adds it to the global model."""
    weights: Float[Tensor, " n"]
    """Each client's share: >= 0, sum 1, or all 0 where the rule moves nothing."""
    suspicion: Float[Tensor, " n"]
    """The rule's own score: higher means less trusted; constant where a rule has none."""


Aggregator = Callable[..., Aggregate]
"""A rule. Its first parameter is ``updates``; of the facts that the server has about a round it is
handed those that its other parameters name (:class:`strategies.pipeline.RoundFacts`)."""


class TooFewClientsError(ValueError):
    """Fewer clients than a rule's guarantee needs: the round can be skipped, or the run stopped."""


def prior_or_uniform(
    updates: Float[Tensor, "n d"], prior: Float[Tensor, " n"] | None
) -> Float[Tensor, " n"]:
    """Return the weights a client has before the rule has its say: equal unless given."""
    if prior is None:
        return torch.full((len(updates),), 1 / len(updates), dtype=torch.float64).to(updates.device)
    return prior.to(device=updates.device, dtype=torch.float64)


def weighted_sum(
    updates: Float[Tensor, "n d"], weights: Float[Tensor, " n"]
) -> Float[Tensor, " d"]:
    """Sum the rows times their weights, accumulated in float64, without a second (n, d) matrix."""
    total = torch.empty(updates.shape[1], dtype=updates.dtype, device=updates.device)
    weights = weights.double()
    for start in range(0, updates.shape[1], COLUMN_BLOCK):
        block = updates[:, start : start + COLUMN_BLOCK]
        total[start : start + COLUMN_BLOCK] = weights @ block.double()
    return total


def normalised(weights: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Scale weights to sum 1; all-zero weights stay all zero."""
    total = weights.sum()
    return weights / total if total > 0 else torch.zeros_like(weights)


def mean_of_selected(
    updates: Float[Tensor, "n d"],
    selected: Bool[Tensor, " n"],
    prior: Float[Tensor, " n"] | None,
    suspicion: Float[Tensor, " n"],
) -> Aggregate:
    """Average the selected rows in proportion to their prior weights."""
    weights = normalised(prior_or_uniform(updates, prior) * selected)
    # Only the selected rows enter the sum: 0 × inf in a rejected row would be NaN.
    chosen = weights.nonzero().squeeze(1)
    return Aggregate(weighted_sum(updates[chosen], weights[chosen]), weights, suspicion)
