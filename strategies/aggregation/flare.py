"""FLARE: trust models whose last hidden layers see the server's data as most others do."""

from collections.abc import Callable

import torch

from strategies.aggregation.aggregate import Aggregate, mean_of_selected
from strategies.aggregation.traits import Bound, Traits
from strategies.shapes import Float, Tensor

Represent = Callable[[Tensor], Tensor]
"""From an update to the inputs of its model's output layer for each of the server's examples."""

ROUNDING = 1e-12  # by which discrepancies of copies may differ

flare_bound = Bound("flare", 0, 2)


@Traits(bound=flare_bound, compares_pairs=True)
def flare(
    updates: Float[Tensor, "n d"],
    represent: Represent,
    temperature: float = 1.0,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Weight clients by how many others count them among their nearer half, by representations.

    A model's representations are the inputs of its output layer for each of the server's own
    examples. The distance of two models is the unbiased squared maximum mean discrepancy of their
    representations, with the kernel exp(-‖x - y‖² / width), where width is the layer's. Each client
    names the ⌊n / 2⌋ nearest others, and a client named c times has the trust
    exp(c / (τ · mean c)): with τ = 1, one that nobody names still has e⁻¹ of the weight of a client
    named as often as the mean. Clients whose data are unlike those of most are named by few, honest
    or not.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        represent: Returns the representations of the server's examples in the model that an update
            gives. Called n times.
        temperature: τ, in units of the mean count; 1 in the authors' code.
        prior: Multiplies the trust; equal by default.

    Returns:
        update: The mean of the updates by their trust.
        weights: prior · trust, scaled to sum 1.
        suspicion: The share of the others that do not name the client.

    Bound:
        n >= 2, else TooFewClientsError: there must be somebody to compare with. It guarantees
        nothing, since everybody keeps some weight; attackers are named less while n >= 2f + 1.

    Ties:
        Others equally far are all named; without a hidden layer that is everybody. A model whose
        representations are NaN is named by nobody, and names nobody.

    Variants:
        The authors' code takes 200 examples of a single class, BackFed 10; here they are all that
        the server holds, of one class with ``server_data.bias``. Examples of the minority among
        them hardly help it. The authors' code names one other fewer, since it counts the client
        itself, and sets discrepancies below 0 to 0: those of nearly identical models, which are
        then named in the order of their ids. BackFed's kernel is exp(-‖x - y‖² / 2), whatever the
        width, and its trust exp(c), as with a temperature of 1 / ⌊n / 2⌋.

    References:
        Wang et al., FLARE: Defending Federated Learning against Model Poisoning Attacks via Latent
        Space Representations, AsiaCCS 2022.
    """
    n = len(updates)
    flare_bound(n)
    apart = _discrepancies([represent(update).double() for update in updates])
    apart = apart.nan_to_num(nan=torch.inf).fill_diagonal_(torch.inf)
    furthest = apart.kthvalue(n // 2, dim=1, keepdim=True).values
    named = (apart <= furthest + ROUNDING) & apart.isfinite()
    counts = named.double().sum(dim=0)
    trust = torch.softmax(counts / (temperature * counts.mean().clamp(min=1e-300)), dim=0)
    return mean_of_selected(updates, trust, prior, 1 - counts / (n - 1))


def _discrepancies(models: list[Float[Tensor, "m width"]]) -> Float[Tensor, "n n"]:
    """Return the unbiased squared maximum mean discrepancy of every pair."""
    m, width = models[0].shape
    means = models[0].new_empty(len(models), len(models))
    for i, one in enumerate(models):
        for j, other in enumerate(models[: i + 1]):
            kernel = torch.exp(-torch.cdist(one, other).square() / width)
            means[i, j] = means[j, i] = kernel.mean()
    within = (m * means.diagonal() - 1) / max(m - 1, 1)  # without an example and itself
    return within[:, None] + within - 2 * means
