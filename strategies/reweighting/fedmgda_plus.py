"""FedMGDA+: a step along which nobody's loss grows."""

import torch

from strategies.aggregation.aggregate import normalised, norms_of
from strategies.aggregation.distances import gram_in_float64
from strategies.aggregation.norm_clipping import median_of
from strategies.aggregation.traits import Traits
from strategies.reweighting.lift import Lift
from strategies.reweighting.min_norm import min_norm_mixture
from strategies.shapes import Float, Tensor

SHORT = 0.1  # of the median length: shorter updates are treated as if they had this length
LEAST = 1e-30  # a length whose reciprocal float32 holds


@Traits(compares_pairs=True)
def fedmgda_plus(
    updates: Float[Tensor, "n d"],
    prior: Float[Tensor, " n"],
    epsilon: float,
    length: float | None = None,
) -> Lift:
    """Bring all updates to one length and move by the shortest mixture of them.

    With ûᵢ = uᵢ / ‖uᵢ‖ the server moves by η Σ λᵢ ûᵢ, where λ minimises ‖Σ λᵢ ûᵢ‖ among weights
    that differ from the prior by ε at most. With ε = 1 nobody's loss grows to first order:
    ⟨ûᵢ, Σ λⱼ ûⱼ⟩ >= ‖Σ λⱼ ûⱼ‖² for all. A client whose update points away from the others is
    lifted, whatever its aim, and nobody is heard more for a longer update. In terms of the raw
    updates this is a mean with weights ∝ λᵢ / ‖uᵢ‖, times a step.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        prior: Weights before any lift, shape (n,), sum 1; 0 stays 0.
        epsilon: ε, in [0, 1]: 0 keeps the prior, 1 looks for the shortest of all mixtures.
        length: η, in parameter units; by default the median ‖uᵢ‖ of the round (midway between the
            two middle ones for even n).

    Returns:
        weights: λᵢ / ‖uᵢ‖, scaled to sum 1.
        step: η Σ λᵢ / ‖uᵢ‖.

    Bound:
        None: λᵢ is at most the prior + ε, which for ε = 0.1 is four times the fair share among 30
        clients, and attackers who agree with nobody are likely to get it. With ε = 1 one client
        that sends the opposite of the others' mean stops the server. The step is right for a mean;
        for a rule that rejects short updates it is too long, by up to ten times the λ of those.

    Ties:
        Of several λ the one nearest to the prior is taken, so that copies share equally; λ is
        rounded to nine decimals.

    Variants:
        The paper's η shrinks by a factor every 100 rounds. So does that of the authors' code, from
        1, unless it is told to take the median length of the round; the prior is equal weights
        there. ε is 1 in its scripts, 0.1 by default in FLGo, which adds 1e-8 to lengths; FedLab has
        ε = 1 alone. None of them says where an update of length 0 points. Here updates below a
        tenth of the median length are scaled as if they had that length, and thus are short vectors
        in the search for λ too.

    References:
        Hu et al., Federated Learning Meets Multi-Objective Optimization, IEEE Transactions on
        Network Science and Engineering 2022.
    """
    prior = prior.double()
    heard = prior > 0
    norms = norms_of(updates).to(prior.device)
    median = median_of(norms[heard])
    lengths = norms.clamp(min=max(SHORT * median.item(), LEAST))
    gram = gram_in_float64(updates).to(prior.device) / lengths[:, None] / lengths
    shares = torch.zeros_like(prior)
    shares[heard] = min_norm_mixture(gram[heard][:, heard], prior[heard], epsilon)
    weights = shares / lengths
    step = (median if length is None else length) * weights.sum()
    return Lift(normalised(weights), step=step.item(), lengths=lengths)
