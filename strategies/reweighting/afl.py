"""Agnostic federated learning by projection: AFL and DRFA."""

import numpy as np
import torch

from strategies.aggregation.aggregate import normalised
from strategies.memory import Memory, recall, remember
from strategies.reweighting.lift import Lift
from strategies.reweighting.simplex import project_to_simplex
from strategies.shapes import Float, Int, Tensor


def afl(
    clients: Int[Tensor, " n"],
    losses: Float[Tensor, " n"],
    prior: Float[Tensor, " n"],
    memory: Memory,
    step_size: float,
) -> Lift:
    """Play the adversary's side of a minimax game over clients by projected gradient.

    A client's weight λ begins as its prior in the first round in which it takes part; the fewer
    take part, the larger that is. A round averages by the λ that it begins with, and then steps
    λ ← Proj(λ + η · losses), the projection onto the simplex. Where only some clients take part,
    the sum of their λ stays what it was.

    Args:
        clients: Ids of the round's clients, shape (n,).
        losses: Mean loss of the received model on each client's data, shape (n,).
        prior: Weights before any lift, shape (n,), sum 1.
        memory: Each client's λ.
        step_size: The ascent step η per unit of loss.

    Returns:
        weights: λ, scaled to sum 1 over the round's clients.
        step: 1.

    Bound:
        None: a client that reports a large loss takes all the weight.

    Ties:
        None can arise.

    Variants:
        The code of fair_flearn steps in the same order, with η = 0.1 on Adult, and returns the
        running average of all models; here the last model counts, as for every other method. Its
        projection ends each partial sum one entry early: its λ often sum to more than 1, up to 1.2
        in 300 simulated runs. Their clients take one gradient step a round. Unlike the
        multiplicative step of the agnostic method, this one can take a weight to 0.

    References:
        Mohri et al., Agnostic Federated Learning, ICML 2019.
    """
    weights = _mixture(memory, "afl", clients, prior)
    stepped = _ascended(weights, step_size * losses)
    return Lift(normalised(weights), remember(memory, "afl", clients, stepped))


def drfa(
    clients: Int[Tensor, " n"],
    losses: Float[Tensor, " n"],
    prior: Float[Tensor, " n"],
    memory: Memory,
    rng: np.random.Generator,
    step_size: float,
    local_steps: int,
    n_drawn: int | None = None,
) -> Lift:
    """Draw the round's clients from a mixture λ that the losses move once per round.

    With ``n_drawn`` = m, m clients are drawn with replacement in proportion to λ, and weighted by
    how often they were drawn; without it each is weighted by λ, which is the same on average. λ
    then steps by Proj(λ + η τ · losses), as if each of the τ local steps had been a step of the
    game.

    Args:
        clients: Ids of the round's clients, shape (n,).
        losses: Mean loss of the received model on each client's data, shape (n,).
        prior: Weights before any lift, shape (n,), sum 1.
        memory: Each client's λ.
        rng: Draws the clients.
        step_size: The ascent step η per unit of loss and local step.
        local_steps: τ, the local steps of a round that one step of λ stands for.
        n_drawn: m, how many clients to draw; by default none are drawn.

    Returns:
        weights: How often each client was drawn / m, or λ, scaled to sum 1.
        step: 1.

    Bound:
        None: a client that reports a large loss takes all the weight.

    Ties:
        None can arise.

    Variants:
        The paper draws first and lets only the drawn train; λ moves by the losses of a second set
        of clients, drawn uniformly, on the average of their models after a random local step. Here
        all of the round's clients train and report the loss of the received model. The authors'
        FedTorch draws uniformly and weights by λ, begins with η = 0.1, reduces it by a tenth in
        every round, and raises a λ below 0.001 to that. The paper and FedTorch multiply losses by
        the number of all clients over that of clients that report one, and project all λ; here the
        sum of the λ of a round's clients stays what it was.

    References:
        Deng et al., Distributionally Robust Federated Averaging, NeurIPS 2020.
    """
    weights = _mixture(memory, "drfa", clients, prior)
    stepped = _ascended(weights, step_size * local_steps * losses)
    weights = normalised(weights)
    if n_drawn is not None:
        counts = rng.multinomial(n_drawn, weights.cpu().numpy())
        weights = torch.from_numpy(counts).to(weights) / n_drawn
    return Lift(weights, remember(memory, "drfa", clients, stepped))


def _mixture(
    memory: Memory, name: str, clients: Int[Tensor, " n"], prior: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Return each client's λ: the prior for clients not yet seen, and for all if every λ is 0."""
    unknown = -1.0
    weights = recall(memory, name, clients, default=unknown)
    weights = torch.where(weights == unknown, prior, weights)
    return weights if weights.sum() > 0 else prior


def _ascended(weights: Float[Tensor, " n"], gain: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return project_to_simplex(weights + gain, mass=weights.sum().item())
