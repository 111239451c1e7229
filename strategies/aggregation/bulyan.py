"""Bulyan: Krum to select, then a trimmed mean of what was selected."""

from strategies.aggregation.aggregate import Aggregate, TooFewClientsError
from strategies.aggregation.coordinates import mean_of_windows, nearest_to_median
from strategies.aggregation.distances import squared_distances
from strategies.aggregation.krum import krum_order
from strategies.shapes import Float, Tensor


def bulyan_bound(n: int, n_malicious: int) -> None:
    """Raise TooFewClientsError if n < 4f + 3, below which Bulyan's guarantee does not hold."""
    if n < 4 * n_malicious + 3:
        raise TooFewClientsError(
            f"bulyan needs n >= 4f + 3 clients, got n={n} and f={n_malicious}: "
            f"sample at least {4 * n_malicious + 3} clients or lower n_malicious"
        )


def bulyan(
    updates: Float[Tensor, "n d"], n_malicious: int, prior: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Select n - 2f by repeated Krum, then average per coordinate the n - 4f nearest the median.

    Krum alone can be fooled in one coordinate by an update that is close in all others; the second
    step leaves at most f values on either side of the median to do so. Among the last rows left
    Krum takes at least one neighbour, where n - f - 2 would be none.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: The bound f the defence assumes; the true count may differ.
        prior: Weights among the survivors of a coordinate; equal by default.

    Returns:
        The mean of the survivors; as weights each client's share in it, averaged over coordinates;
        as suspicion the share of coordinates in which it is dropped, 1 if it was not selected.
        Ties: in Krum the row closer to all that are left, then the lowest; the lower of two values
        as far from the median.

    Raises:
        TooFewClientsError: If n < 4f + 3.

    References:
        El Mhamdi et al., The Hidden Vulnerability of Distributed Learning in Byzantium, ICML 2018.
        FLPoison keeps n - 2f in the second step too, which then trims nothing.
    """
    n = len(updates)
    bulyan_bound(n, n_malicious)
    n_selected, n_kept = n - 2 * n_malicious, n - 4 * n_malicious
    order = krum_order(squared_distances(updates), n_malicious, n_selected)
    selected = order[:n_selected].sort().values
    return mean_of_windows(
        updates, lambda ordered: nearest_to_median(ordered, n_kept), n_kept, prior, selected
    )
