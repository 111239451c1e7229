"""Tilted federated learning: one knob from robust to fair."""

import torch

from strategies.memory import Memory
from strategies.reweighting.lift import Lift
from strategies.shapes import Float, Tensor

ESTIMATE = "tilted.log_mean"


def tilted(
    losses: Float[Tensor, " n"],
    prior: Float[Tensor, " n"],
    memory: Memory,
    tilt: float,
    smoothing: float | None = None,
) -> Lift:
    """Weight clients by exp(tilt · loss).

    A tilt above 0 lifts clients with a large loss (fair), below 0 those with a small one (robust);
    0 is FedAvg. Without ``smoothing`` the weights sum to 1. With it the server moves by Σ pₖ eₖ uₖ
    / Z, where eₖ = exp(tilt · (loss - the largest loss)) and Z is an exponential moving average of
    Σ pₖ eₖ: the round's step is then Σ pₖ eₖ / Z.

    Args:
        losses: Mean loss of the received model on each client's data, shape (n,).
        prior: Weights pₖ before any lift, shape (n,), sum 1.
        memory: Where smoothed, the logarithm of Z.
        tilt: The tilt t, per unit of loss.
        smoothing: The share of a new round in Z, in (0, 1]; by default no smoothing.

    Returns:
        weights: prior · exp(tilt · loss), scaled to sum 1.
        step: 1, or Σ pₖ eₖ / Z.

    Bound:
        None: a client that reports a large loss (tilt > 0) or a small one (tilt < 0) takes all the
        weight.

    Ties:
        None can arise.

    Variants:
        The authors' code smooths by 0.5 and begins with Z = 0, which doubles the first step, and
        then divides by the number of clients once more than its formula; here Z begins as the first
        round's mean.

    References:
        Li et al., Tilted Empirical Risk Minimization, ICLR 2021.
    """
    tilted_logs = prior.log() + tilt * (losses - losses.max())
    weights = torch.softmax(tilted_logs, dim=0)
    if smoothing is None:
        return Lift(weights, memory)
    # In logarithms: with a tilt below 0, e to the difference of an absurd loss is infinite.
    log_mean = torch.logsumexp(tilted_logs, dim=0)
    share = torch.tensor(smoothing, dtype=log_mean.dtype)
    before = memory.get(ESTIMATE, log_mean)
    estimate = torch.logaddexp(before + (1 - share).log(), log_mean + share.log())
    step = (log_mean - estimate).exp().item()
    return Lift(weights, {**memory, ESTIMATE: estimate}, step=step)
