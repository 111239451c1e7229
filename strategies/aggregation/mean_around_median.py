"""Mean around the median: per coordinate, the values nearest to it."""

from strategies.aggregation.aggregate import Aggregate, TooFewClientsError
from strategies.aggregation.coordinates import mean_of_windows, nearest_to_median
from strategies.shapes import Float, Tensor


def mean_around_median_bound(n: int, n_malicious: int) -> None:
    """Raise TooFewClientsError if the median itself could be malicious (n < 2f + 1)."""
    if n <= 2 * n_malicious:
        raise TooFewClientsError(
            f"mean_around_median needs n >= 2f + 1 clients, got n={n} and f={n_malicious}: "
            f"sample at least {2 * n_malicious + 1} clients or lower n_malicious"
        )


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
        The mean of the survivors; as weights each client's share in it, averaged over coordinates;
        as suspicion the share of coordinates in which it is dropped. Of two values as far from
        the median the lower stays; of equal values the lowest row counts as the smallest.

    Raises:
        TooFewClientsError: If n < 2f + 1.

    References:
        Xie et al., Generalized Byzantine-tolerant SGD, 2018 ("mean around median"; ByzFL: MeaMed).
    """
    n = len(updates)
    mean_around_median_bound(n, n_malicious)
    n_kept = n - n_malicious
    return mean_of_windows(
        updates, lambda ordered: nearest_to_median(ordered, n_kept), n_kept, prior
    )
