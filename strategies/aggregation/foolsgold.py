"""FoolsGold: clients that always pull in the same direction share one voice."""

from collections.abc import Mapping

import torch

from strategies.aggregation.aggregate import Aggregate, mean_of_selected
from strategies.aggregation.distances import cosines
from strategies.aggregation.layers import output_layer
from strategies.aggregation.traits import Traits
from strategies.memory import Memory, recall, remember
from strategies.shapes import Float, Int, Tensor

CAP = 0.99  # the logit of 1 is infinite


@Traits(selects=True, compares_pairs=True)
def foolsgold(
    updates: Float[Tensor, "n d"],
    clients: Int[Tensor, " n"],
    memory: Memory,
    layers: Mapping[str, slice] | None = None,
    confidence: float = 1.0,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Weight clients down by their largest cosine similarity to another's summed updates.

    Similarities cs to more suspect clients are pardoned in part (multiplied by own / other's
    maximum). A weight is x = 1 - max cs, scaled so that the largest is 1, and then
    κ (ln(x / (1 - x)) + 0.5), clipped to [0, 1]. A homogeneous group of honest clients is taken for
    sybils.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        clients: Ids of the clients, shape (n,).
        memory: The sum of each client's past updates, or of the part of them that is compared.
        layers: Where each array of parameters stands in a row, by its name. If given, only the
            weights of the output layer (the largest array of the last module) are compared, as in
            the paper; without it, all parameters.
        confidence: κ; 1 in the paper and in BackFed.
        prior: Multiplies the weights; equal by default.

    Returns:
        update: The mean of the updates by the weights.
        weights: prior · the weights above, scaled to sum 1; all 0 where everybody looks like a
            sybil.
        suspicion: The largest cosine similarity after pardoning, at least 0.

    Bound:
        None: made against sybils, it lets a lone attacker of any size keep its full weight.

    Ties:
        None can arise. An update of norm 0 has cosine 0.

    Variants:
        The paper adds up weight · update, and DBA's code divides that by n; here, as in BackFed,
        the weights sum to 1, so that the step does not grow with the number of clients. The
        authors' and DBA's code also compare the output layer's weights, BackFed all parameters. The
        paper, and optionally the authors' code, weight these by their importance in the model;
        FLPoison compares the largest tenth of the model's output layer. The authors' code for
        softmax regression, FLPoison and BackFed scale updates longer than 1 to norm 1 before adding
        them to the history.

    References:
        Fung et al., The Limitations of Federated Learning in Sybil Settings, RAID 2020.
    """
    recent = updates[:, output_layer(layers)[0]] if layers else updates
    shape = (recent.shape[1],)
    history = recall(memory, "history", clients, 0.0, shape, updates.dtype, updates.device)
    history += recent
    largest_allowed = torch.finfo(updates.dtype).max  # sums of giants stay finite
    history.clamp_(-largest_allowed, largest_allowed)
    kept = remember(memory, "history", clients, history)
    similarity = cosines(history).fill_diagonal_(0)  # maxima are >= 0, as in the authors' code
    largest = similarity.max(dim=1).values
    # Where j is more suspect than i, the similarity of i to j is pardoned in part.
    pardon = torch.where(
        largest[None, :] > largest[:, None], largest[:, None] / largest[None, :], 1.0
    )
    suspicion = (similarity * pardon).max(dim=1).values
    weights = 1 - suspicion
    if weights.max() > 1e-6:  # less is rounding: everybody has a twin
        weights = (weights / weights.max()).clamp(max=CAP)
        weights = (confidence * (torch.logit(weights) + 0.5)).clamp(0, 1)
    else:
        weights = torch.zeros_like(weights)
    return mean_of_selected(updates, weights, prior, suspicion)._replace(memory=kept)
