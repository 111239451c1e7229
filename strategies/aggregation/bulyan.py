"""Bulyan: Krum to select, then a trimmed mean of what was selected."""

from strategies.aggregation.aggregate import Aggregate
from strategies.aggregation.coordinates import mean_of_windows
from strategies.aggregation.distances import squared_distances
from strategies.aggregation.krum import krum_order
from strategies.aggregation.traits import Bound, Traits
from strategies.shapes import Float, Tensor

bulyan_bound = Bound("bulyan", 4, 3)


@Traits(bound=bulyan_bound, selects=True, compares_pairs=True)
def bulyan(
    updates: Float[Tensor, "n d"], n_malicious: int, prior: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Select n - 2f by repeated Krum, then average per coordinate the n - 4f nearest the median.

    Krum alone can be fooled in one coordinate by an update that is close in all others; the second
    step leaves at most f values on either side of the median that could do so. When few rows are
    left, Krum counts at least one neighbour, where n - f - 2 would be none.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: The bound f the defence assumes; the true count may differ.
        prior: Weights among the survivors of a coordinate; equal by default.

    Returns:
        update: Per coordinate, the mean of the survivors in proportion to their prior; 0 where all
            of them have prior 0.
        weights: Each client's share in that mean, averaged over coordinates.
        suspicion: The share of coordinates in which the client is dropped; 1 if not selected.
            Copies share it, and their weight, whichever of them are selected.

    Bound:
        n >= 4f + 3, else TooFewClientsError: below it the guarantee does not hold.

    Ties:
        In Krum, the row closer to all remaining rows is chosen, then the lowest row. Of two values
        equally far from the median the lower stays. Equal values share the kept ranks equally.

    Variants:
        For an even number the median is midway between the two middle values, where the paper takes
        one of them. Flower's ``Bulyan`` and FL-Byzantine-Library select all n - 2f at once, by one
        Multi-Krum; older Flower (``aggregate_bulyan``) does as here except in ties, and the last
        choice is a tie where f is 1 or 2. The ALIE authors' code and FedML's add up unsquared
        distances to all but f and keep n - 4f - 1. FL-Byzantine-Library and BackFed take the
        trimmed mean for the second step; FLPoison keeps n - 2f in the second step too, which then
        trims nothing. AggregaThor's and SignGuard's code select n - 2f - 2 in the first step, and
        use means of Multi-Krum in place of single updates.

    References:
        El Mhamdi et al., The Hidden Vulnerability of Distributed Learning in Byzantium, ICML 2018.
    """
    n = len(updates)
    bulyan_bound(n, n_malicious)
    n_selected = n - 2 * n_malicious
    selected = krum_order(squared_distances(updates), n_malicious, n_selected)[:n_selected]
    return mean_of_windows(updates, None, n - 4 * n_malicious, prior, rows=selected)
