"""Mean around the median: per coordinate, the values nearest to it."""

from strategies.aggregation.aggregate import Aggregate
from strategies.aggregation.coordinates import mean_of_windows
from strategies.aggregation.traits import Bound, Traits
from strategies.shapes import Float, Tensor

mean_around_median_bound = Bound("mean_around_median", 2, 1)


@Traits(bound=mean_around_median_bound)
def mean_around_median(
    updates: Float[Tensor, "n d"], n_malicious: int, prior: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Average, in each coordinate, the n - f values nearest to the median.

    Unlike trimming, it may drop all f from one side.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: How many values f to drop in each coordinate.
        prior: Weights among the survivors of a coordinate; equal (the paper's) by default.

    Returns:
        update: Per coordinate, the mean of the survivors in proportion to their prior; 0 where all
            of them have prior 0.
        weights: Each client's share in that mean, averaged over coordinates.
        suspicion: The share of coordinates in which the client is dropped.

    Bound:
        n >= 2f + 1, else TooFewClientsError: the median itself could be malicious.

    Ties:
        Of two values equally far from the median the lower stays. Equal values share the kept ranks
        equally, whichever client sent them.

    Variants:
        ByzFL's Meamed is the same; for even n the median is midway between the two middle values in
        both.

    References:
        Xie et al., Generalized Byzantine-tolerant SGD, 2018.
    """
    n = len(updates)
    mean_around_median_bound(n, n_malicious)
    return mean_of_windows(updates, None, n - n_malicious, prior)
