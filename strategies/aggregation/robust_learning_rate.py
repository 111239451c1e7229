"""Robust learning rate (RLR): go backwards where too few agree on the direction."""

import torch

from strategies.aggregation.aggregate import Aggregate, dot_products, prior_or_uniform, weighted_sum
from strategies.aggregation.blocks import column_blocks
from strategies.shapes import Float, Tensor


def robust_learning_rate(
    updates: Float[Tensor, "n d"], threshold: int, prior: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Average, and flip the sign of each coordinate in which |Σ sign(update)| < θ.

    A backdoor's coordinates are pushed by few clients, so they move opposite to where those want
    them. So do the coordinates that matter to a minority alone. Nothing limits the size of an
    update.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        threshold: θ, in clients: at least (n + θ) / 2 must agree.
        prior: Weights of the average; the signs count equally. Equal by default.

    Returns:
        update: The average with flipped coordinates.
        weights: The prior.
        suspicion: The share of coordinates in which the client's sign is against the step.

    Bound:
        None: one client of any size moves it anywhere.

    Ties:
        |Σ sign(update)| = θ counts as agreed. A value of 0 has no sign, so it is neither for nor
        against.

    Variants:
        θ is 4 of 10 clients and 8 of 33 or 40 in the authors' runs, 8 in BackFed, 4 of 10 in FedML.
        The authors' code can also clip in the clients, add noise, and take the median or the signs
        in place of the average.

    References:
        Ozdayi et al., Defending Against Backdoors in Federated Learning with Robust Learning Rate,
        AAAI 2021.
    """
    prior = prior_or_uniform(updates, prior)
    average = weighted_sum(updates, prior)
    update = average.clone()
    opposed = torch.zeros_like(prior)
    for columns in column_blocks(updates):
        signs = updates[:, columns].sign()
        agreed = signs.sum(dim=0).abs() >= threshold
        update[columns] = torch.where(agreed, update[columns], -update[columns])
        opposed += (signs * update[columns].sign() < 0).sum(dim=1)
    # A part is flipped where the average is, so it pulls as the row does along the average.
    pulls = prior * dot_products(updates, average)
    return Aggregate(update, prior, opposed / updates.shape[1], pulls=pulls)
