"""Federated averaging."""

from strategies.aggregation.aggregate import Aggregate, prior_or_uniform, weighted_sum
from strategies.shapes import Float, Tensor


def mean(updates: Float[Tensor, "n d"], prior: Float[Tensor, " n"] | None = None) -> Aggregate:
    """Average the updates in proportion to their prior weights.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        prior: Each client's weight before any defence, >= 0, sum 1; equal by default.

    Returns:
        The weighted mean, the prior as weights, and a constant suspicion.

    References:
        McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized
        Data, AISTATS 2017 (weights in proportion to examples).
    """
    weights = prior_or_uniform(updates, prior)
    return Aggregate(weighted_sum(updates, weights), weights, weights.new_zeros(len(weights)))
