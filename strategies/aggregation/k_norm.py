"""k-norm: leave out the longest updates."""

from strategies.aggregation.aggregate import Aggregate, norms_of
from strategies.aggregation.krum import mean_of_lowest
from strategies.aggregation.traits import Bound, Traits
from strategies.shapes import Float, Tensor

k_norm_bound = Bound("k_norm", 1, 1)


@Traits(bound=k_norm_bound, selects=True)
def k_norm(
    updates: Float[Tensor, "n d"], n_malicious: int, prior: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Drop the f updates of largest L2 norm and average the rest.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: How many updates f to drop.
        prior: Weights among the rest; equal by default.

    Returns:
        update: The mean of the rest.
        weights: Equal among the rest, or in proportion to their prior; 0 for those dropped.
        suspicion: The L2 norms, in parameter units.

    Bound:
        n >= f + 1, else TooFewClientsError: somebody must be left. With f attackers no update that
        stays is longer than the longest honest one.

    Ties:
        Of equal norms the lowest rows stay; copies of any of them share its weight.

    Variants:
        Ditto's code takes f from the true share of corrupted clients.

    References:
        Li et al., Ditto: Fair and Robust Federated Learning Through Personalization, ICML 2021 (a
        baseline there).
    """
    k_norm_bound(len(updates), n_malicious)
    norms = norms_of(updates)
    return mean_of_lowest(updates, norms, len(updates) - n_malicious, prior)
