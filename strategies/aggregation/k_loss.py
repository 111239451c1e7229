"""k-loss: trust one client alone, the one with the largest loss among those assumed honest."""

from strategies.aggregation.aggregate import Aggregate, mean_of_selected
from strategies.aggregation.krum import lowest
from strategies.aggregation.traits import Bound, Traits
from strategies.shapes import Float, Tensor

k_loss_bound = Bound("k_loss", 1, 1)


@Traits(bound=k_loss_bound, selects=True)
def k_loss(
    updates: Float[Tensor, "n d"],
    losses: Float[Tensor, " n"],
    n_malicious: int,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Use only the client whose loss ranks n - f from below.

    The f larger losses are taken for attackers'. A minority that fits badly has large losses too:
    it is either the one client heard or among those dropped.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        losses: Mean loss of the received model on each client's data, shape (n,), as clients report
            it.
        n_malicious: How many clients f are taken for attackers.
        prior: Has no effect on a single choice, except that a client of prior 0 adds nothing.

    Returns:
        update: The chosen update.
        weights: 1 for the chosen client, 0 for all others.
        suspicion: The losses.

    Bound:
        n >= f + 1, else TooFewClientsError: somebody must be left. An attacker that reports the
        right loss is the only one heard, whatever its update.

    Ties:
        Of equal losses the lowest row counts as the smallest.

    Variants:
        Ditto's code takes the same loss, and f from the true share of corrupted clients.

    References:
        Li et al., Ditto: Fair and Robust Federated Learning Through Personalization, ICML 2021 (a
        baseline there).
    """
    n = len(updates)
    k_loss_bound(n, n_malicious)
    losses = losses.to(updates.device)
    chosen = lowest(losses, n - n_malicious) & ~lowest(losses, n - n_malicious - 1)
    return mean_of_selected(updates, chosen, prior, losses)
