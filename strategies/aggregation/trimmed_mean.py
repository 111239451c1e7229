"""Coordinate-wise trimmed mean."""

from strategies.aggregation.aggregate import Aggregate
from strategies.aggregation.coordinates import mean_of_windows
from strategies.aggregation.traits import Bound, Traits
from strategies.shapes import Float, Tensor

trimmed_mean_bound = Bound("trimmed_mean", 2, 1)


@Traits(bound=trimmed_mean_bound)
def trimmed_mean(
    updates: Float[Tensor, "n d"], n_malicious: int, prior: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Drop the f smallest and f largest values of each coordinate and average the rest.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: How many values f to drop at each end of each coordinate.
        prior: Weights among the survivors of a coordinate; equal (the paper's) by default.

    Returns:
        update: Per coordinate, the mean of the survivors in proportion to their prior; 0 where all
            of them have prior 0.
        weights: Each client's share in that mean, averaged over coordinates.
        suspicion: The share of coordinates in which the client is dropped.

    Bound:
        n >= 2f + 1, else TooFewClientsError: trimming must leave somebody.

    Ties:
        Equal values share the kept ranks equally, whichever client sent them.

    Variants:
        f values at each end in ByzFL and Blades. Others give the trimmed share in place of f: 0.2
        in Flower and BackFed, 0.1 in FLPoison, 0.25 at each end in FedML's example;
        FedML's code drops the clients of fewest and of most examples, whatever their values.

    References:
        Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML
        2018.
    """
    n = len(updates)
    trimmed_mean_bound(n, n_malicious)
    return mean_of_windows(updates, n_malicious, n - 2 * n_malicious, prior)
