"""Coordinate-wise median."""

from strategies.aggregation.aggregate import Aggregate
from strategies.aggregation.coordinates import mean_of_windows
from strategies.shapes import Float, Tensor


def coordinate_median(
    updates: Float[Tensor, "n d"], prior: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Take the middle value of each coordinate; for even n the mean of the two middle ones.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        prior: Weights between the two middle values; equal by default.

    Returns:
        update: The median of each coordinate; 0 where those in the middle have prior 0.
        weights: The share of the coordinates in which the client is the median, counted half where
            it is one of two.
        suspicion: The share of coordinates in which it is not.

    Bound:
        None is checked: the result stays among honest values while n >= 2f + 1.

    Ties:
        Equal values share the kept ranks equally, whichever client sent them.

    Variants:
        ByzFL and numpy take the mean of the two middle values as well; torch.median, and with it
        BackFed, FedML and SignGuard's code, takes the lower one, which is biased to one side.

    References:
        Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML
        2018.
    """
    n = len(updates)
    return mean_of_windows(updates, (n - 1) // 2, 2 - n % 2, prior)
