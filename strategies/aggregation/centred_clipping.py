"""Centred clipping: no client may pull further than a radius from where the server stands."""

import torch

from strategies.aggregation.aggregate import Aggregate, normalised, prior_or_uniform, weighted_sum
from strategies.aggregation.distances import squared_distances_to
from strategies.aggregation.norm_clipping import clipping_factors
from strategies.memory import Memory
from strategies.shapes import Float, Tensor


def centred_clipping(
    updates: Float[Tensor, "n d"],
    memory: Memory,
    radius: float,
    n_iterations: int = 1,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Move the centre v by the mean of clip(update - v, τ), beginning at the last round's result.

    A single step suffices because v is carried over rounds: with a bound on what attackers can add
    per round, and honest clients that agree on the rest, it catches up.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        memory: ``centre``, the last round's result; 0 in the first round.
        radius: τ, an L2 norm in parameter units. If it exceeds all distances, the rule is the mean.
        n_iterations: The number L of steps in a round.
        prior: Weights of the clipped differences; equal by default.

    Returns:
        update: The new centre.
        weights: The products prior · factor of the last step, with factor = min(1, τ / distance),
            scaled to sum 1.
        suspicion: The L2 distance to the centre before the last step.

    Bound:
        None: f clients move the centre by at most f / n times τ in a step.

    Ties:
        None can arise.

    Variants:
        τ is 100 in ByzFL and FLPoison, 10 in epfml and FedML, 5 in fedlib, 1 in
        FL-Byzantine-Library; L is 1 in the paper, ByzFL and FLPoison, 3 in epfml, 5 in fedlib.
        FedML begins each round at a random client's update. The authors' clients send momentum in
        place of updates, in their code as a sum; for the average that ``local_method: {kind:
        worker_momentum}`` sends, their τ has to be multiplied by 1 - β.

    References:
        Karimireddy et al., Learning from History for Byzantine Robust Optimization, ICML 2021.
    """
    prior = prior_or_uniform(updates, prior)
    centre = memory.get("centre", torch.zeros_like(updates[0])).to(updates)
    effective = distances = torch.zeros_like(prior)
    for _ in range(n_iterations):
        distances = squared_distances_to(updates, centre).sqrt()
        effective = prior * clipping_factors(distances, radius)
        # v + Σ w (u - v) with Σ w <= 1
        pull = weighted_sum(updates, effective).double()
        centre = (pull + (prior.sum() - effective.sum()) * centre.double()).to(updates)
    memory = {"centre": centre}
    return Aggregate(centre, normalised(effective), distances, memory, multipliers=effective)
