"""Group DRO over groups that the server knows."""

import torch

from strategies.memory import Memory
from strategies.reweighting.agnostic import exponentiated_gradient
from strategies.reweighting.lift import Lift
from strategies.shapes import Float, Int, Tensor

WEIGHTS = "group_dro.weights"
LEAST = 1e-300  # a weight that an absurd loss elsewhere took to 0 has no logarithm to step from


def group_dro(
    clients: Int[Tensor, " n"],
    losses: Float[Tensor, " n"],
    prior: Float[Tensor, " n"],
    memory: Memory,
    counts: Int[Tensor, "clients groups"],
    step_size: float,
    adjustment: float = 0.0,
) -> Lift:
    """Weight groups by exponentiated gradient on their losses, and clients by what they hold.

    With sᵢ the shares of the groups in client i's data, a group's loss is the mean of the clients'
    losses weighted by pᵢ sᵢ, exact where a client holds one group. Group weights q begin equal and
    step by q ← q · exp(η (loss + C / √examples)), scaled to sum 1 over the round's groups. A group
    shares its q among its clients in proportion to pᵢ sᵢ.

    Args:
        clients: Ids of the round's clients, shape (n,).
        losses: Mean loss of the received model on each client's data, shape (n,).
        prior: Weights pᵢ before any lift, shape (n,), sum 1.
        memory: The weights q of all groups.
        counts: An oracle: how many examples of each group every client holds, by client id.
        step_size: The ascent step η per unit of loss.
        adjustment: C, which favours small groups.

    Returns:
        weights: Σ over groups of q pᵢ sᵢ / Σⱼ pⱼ sⱼ.
        step: 1.

    Bound:
        None: a group whose clients report a large loss takes all the weight.

    Ties:
        None can arise.

    Variants:
        The paper draws examples by group and steps at every batch, with C from 0 to 5, and η = 0.01
        in its code. The federated form is this project's own: the server knows who holds which
        group, and steps once a round.

    References:
        Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, ICLR 2020.
    """
    held = counts[clients].to(losses)
    shares = held / held.sum(dim=1, keepdim=True)
    masses = prior[:, None] * shares
    present = masses.sum(dim=0) > 0
    within = masses[:, present] / masses[:, present].sum(dim=0)
    group_losses = within.T @ losses
    sizes = counts.to(losses).sum(dim=0)
    q = memory.get(WEIGHTS, torch.full_like(sizes, 1 / len(sizes)))
    harder = group_losses + adjustment / sizes[present].sqrt()
    mass = q[present].sum()  # groups that nobody holds this round keep their weight
    stepped = exponentiated_gradient(q[present].clamp(min=LEAST), harder, step_size)
    q = q.clone()
    q[present] = mass * stepped
    return Lift(within @ stepped, {**memory, WEIGHTS: q})
