"""Federated averaging."""

from strategies.aggregation.aggregate import Aggregate, prior_or_uniform, weighted_sum
from strategies.aggregation.traits import RowByRow, Traits
from strategies.shapes import Float, Tensor


@Traits(row_by_row=lambda **_: RowByRow(scale=lambda norm: 1.0, suspicion=lambda norm: 0.0))
def mean(updates: Float[Tensor, "n d"], prior: Float[Tensor, " n"] | None = None) -> Aggregate:
    """Average the updates in proportion to their prior weights.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        prior: Each client's weight before any defence, >= 0, sum 1; equal by default.

    Returns:
        update: The weighted mean; in float32 to less than 1e-5 of what a parameter's terms come to
            without their signs, and 4e-7 as a rule.
        weights: The prior.
        suspicion: 0 for everybody.

    Bound:
        None: a single client moves it anywhere.

    Ties:
        None can arise.

    Variants:
        The paper and Flower weight by examples, which a client states itself. Here the scenario's
        ``weight_by`` says what the prior is, and counts come from the engine.

    References:
        McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data,
        AISTATS 2017.
    """
    weights = prior_or_uniform(updates, prior)
    return Aggregate(weighted_sum(updates, weights), weights, weights.new_zeros(len(weights)))
