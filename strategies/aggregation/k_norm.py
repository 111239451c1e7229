"""k-norm: leave out the longest updates."""

from strategies.aggregation.aggregate import (
    Aggregate,
    TooFewClientsError,
    mean_of_selected,
    norms_of,
)
from strategies.aggregation.krum import lowest
from strategies.shapes import Float, Tensor


def k_norm_bound(n: int, n_malicious: int, rule: str = "k_norm") -> None:
    """Raise TooFewClientsError if dropping f leaves nobody."""
    if n <= n_malicious:
        raise TooFewClientsError(
            f"{rule} needs n >= f + 1 clients, got n={n} and f={n_malicious}: "
            f"sample at least {n_malicious + 1} clients or lower n_malicious"
        )


def k_norm(
    updates: Float[Tensor, "n d"], n_malicious: int, prior: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Drop the f updates of largest L2 norm and average the rest.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: How many updates f to drop.
        prior: Weights among the rest; equal by default.

    Returns:
        The mean of the rest, their weights, and the norms as suspicion. Of equal norms the lowest
        rows stay.

    Raises:
        TooFewClientsError: If n < f + 1.

    References:
        Li et al., Ditto: Fair and Robust Federated Learning Through Personalization, ICML 2021
        (a baseline there).
    """
    k_norm_bound(len(updates), n_malicious)
    norms = norms_of(updates)
    return mean_of_selected(updates, lowest(norms, len(updates) - n_malicious), prior, norms)
