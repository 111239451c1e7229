"""FLTrust: believe a client as far as it agrees with the server's own small dataset."""

import torch

from strategies.aggregation.aggregate import (
    Aggregate,
    normalised,
    norms_of,
    prior_or_uniform,
    weighted_sum,
)
from strategies.aggregation.distances import cosines_with
from strategies.aggregation.traits import Traits
from strategies.shapes import Float, Tensor


@Traits(selects=True)
def fltrust(
    updates: Float[Tensor, "n d"],
    reference: Float[Tensor, " d"],
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Average the updates, rescaled to the server's norm, by their cosine to the server's update.

    The trust score is ReLU(cos(update, reference)). The rule can only be as fair as its root data:
    the updates of a minority that these data lack point elsewhere and are not trusted.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        reference: The update that the server makes on its own root dataset, shape (d,).
        prior: Multiplies the trust scores; equal by default.

    Returns:
        update: The trust-weighted mean of the rescaled updates; 0 where nobody is trusted.
        weights: prior · trust, scaled to sum 1; all 0 where nobody is trusted.
        suspicion: Minus the cosine.

    Bound:
        None: it needs root data in place of an honest majority. The result is never longer than the
        reference.

    Ties:
        None can arise. An update or a reference of norm 0 has cosine 0.

    Variants:
        The paper's root dataset has 100 examples, as have FLPoison's and FLTrust_pytorch's (drawn
        from the test set there). The paper's server takes as many local steps as a client. Here it
        trains as clients do, except for a local method: with ``local_epochs`` it takes fewer steps
        than a client with more examples, and the model moves less far; with ``local_steps`` both
        take equally many. Where nobody is trusted, FLPoison averages all equally.

    References:
        Cao et al., FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping, NDSS 2021.
    """
    norms = norms_of(updates)
    reference_norm = torch.linalg.vector_norm(reference, dtype=torch.float64)
    cosines = cosines_with(updates, reference, norms)
    trust = normalised(prior_or_uniform(updates, prior) * cosines.clamp(min=0))
    rescaled = torch.where(norms > 0, trust * reference_norm / norms, 0.0)
    update = weighted_sum(updates, rescaled)
    return Aggregate(update, trust, -cosines, multipliers=rescaled, of_directions=True)
