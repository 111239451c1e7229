"""Agnostic federated averaging: weights that grow with the loss."""

import torch

from strategies.memory import Memory, recall, remember
from strategies.reweighting.lift import Lift
from strategies.shapes import Float, Int, Tensor


def exponentiated_gradient(
    weights: Float[Tensor, " n"], losses: Float[Tensor, " n"], step_size: float
) -> Float[Tensor, " n"]:
    """Multiply each weight by exp(step_size · loss) and scale to sum 1."""
    return torch.softmax(weights.log() + step_size * losses, dim=0)


def agnostic(
    clients: Int[Tensor, " n"],
    losses: Float[Tensor, " n"],
    prior: Float[Tensor, " n"],
    memory: Memory,
    step_size: float,
) -> Lift:
    """Play the adversary's side of a minimax game over clients by exponentiated gradient.

    Each client keeps a factor, at first 1, which is multiplied by exp(step_size · loss) in every
    round in which it takes part; the weights of a round are prior · factor, scaled to sum 1, with
    this round's losses already counted. The factors are then rescaled so that Σ prior · factor over
    the round's clients is what it was before: where only some clients take part, their total stays
    the same, and nobody gains by being sampled more often.

    Args:
        clients: Ids of the round's clients, shape (n,).
        losses: Mean loss of the received model on each client's data, shape (n,).
        prior: Weights before any lift, shape (n,), sum 1.
        memory: Each client's log(factor) / step_size: the sum of its losses so far, less what the
            rescaling took from all clients of the same rounds.
        step_size: The ascent step η per unit of loss, > 0.

    Returns:
        weights: prior · factor, scaled to sum 1.
        step: 1.

    Bound:
        None: a client that reports a large loss takes all the weight, and leaves the others of its
        round little for later ones.

    Ties:
        None can arise.

    Variants:
        The paper steps by projection onto the simplex, with η = 0.1 in fair_flearn (on Adult); the
        multiplicative step is group DRO's, with η = 0.01 in its code.

    References:
        Mohri et al., Agnostic Federated Learning, ICML 2019; the step is that of Sagawa et al.,
        Distributionally Robust Neural Networks for Group Shifts, ICLR 2020.
    """
    # Losses are kept, since factors would over- or underflow after a few hundred rounds.
    before = recall(memory, "agnostic", clients, default=0.0)
    after = before + losses
    weights = exponentiated_gradient(prior, after, step_size)
    gain = _log_mass(prior, after, step_size) - _log_mass(prior, before, step_size)
    return Lift(weights, remember(memory, "agnostic", clients, after - gain / step_size))


def _log_mass(
    prior: Float[Tensor, " n"], total_losses: Float[Tensor, " n"], step_size: float
) -> Tensor:
    """Return the logarithm of Σ prior · factor."""
    return torch.logsumexp(prior.log() + step_size * total_losses, dim=0)
