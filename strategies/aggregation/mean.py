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
        update: The weighted mean; in float32 its error is below 1e-5 of the sum of a parameter's
            absolute terms, and typically 4e-7.
        weights: The prior.
        suspicion: 0 for everybody.

    Bound:
        None: a single client moves it anywhere.

    Ties:
        None can arise.

    Variants:
        The paper and Flower weight by the number of examples, which clients report themselves. Here
        the scenario's ``weight_by`` sets the prior, and the engine counts the examples.

    References:
        McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data,
        AISTATS 2017.
    """
    weights = prior_or_uniform(updates, prior)
    return Aggregate(weighted_sum(updates, weights), weights, weights.new_zeros(len(weights)))
