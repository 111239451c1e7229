"""Just Train Twice, with clients in place of examples."""

from typing import Literal

import torch

from strategies.memory import Memory, recall, remember
from strategies.reweighting.lift import Lift
from strategies.shapes import Bool, Float, Int, Tensor


def jtt(
    clients: Int[Tensor, " n"],
    losses: Float[Tensor, " n"],
    prior: Float[Tensor, " n"],
    round_: int,
    memory: Memory,
    confidences: Float[Tensor, " n"] | None = None,
    *,
    warm_up_rounds: int,
    factor: float,
    n_flagged: int | None = None,
    threshold: float | None = None,
    flag_by: Literal["loss", "confidence"] = "loss",
    adds_one: bool = False,
    restart: bool = True,
) -> Lift:
    """Train briefly, flag the clients that the model serves worst, train again with them lifted.

    The flags are set once, at the end of the last warm-up round, by the model received in that
    round (for clients not sampled then, by their latest report). If the server has to skip that
    round, they are set in the next one. From then on the weights are prior · factor for flagged
    clients and prior for others, scaled to sum 1. Give either ``n_flagged`` or ``threshold``.

    Args:
        clients: Ids of the round's clients, shape (n,).
        losses: Mean loss of the received model on each client's data, shape (n,).
        prior: Weights before any lift, shape (n,), sum 1.
        round_: The round, from 1.
        memory: Each client's latest loss or confidence; once the flags are set, who is flagged.
        confidences: Mean probability that the received model gives the labels of each client's
            data, shape (n,). If bound to None, where flags go by loss, clients need not report it.
        warm_up_rounds: Rounds of plain averaging before the flags are set, >= 1.
        factor: The upweighting λ of a flagged client; 1 lifts nobody.
        n_flagged: How many clients to flag: those of largest loss or least confidence.
        threshold: Flag clients with a larger loss, or a smaller confidence, than this.
        flag_by: What the flags go by.
        adds_one: Whether a flagged client weighs λ + 1, as in the authors' code, which puts λ
            copies of an example beside it.
        restart: Whether to begin again from the initial model after the warm-up, as JTT does.

    Returns:
        weights: prior during the warm-up; then prior · factor if flagged, scaled to sum 1.
        step: 1.
        restart: True in the last warm-up round, unless switched off.

    Bound:
        None: attackers whose losses are large are flagged like a minority.

    Ties:
        Of equal losses or confidences the lowest ids are flagged.

    Variants:
        The authors' code flags examples that the model gets wrong, which for two classes is a
        confidence below 0.5, and shows each of these λ + 1 times in all, with λ in {20, 50, 100}.
        The client-level form is this project's own.

    References:
        Liu et al., Just Train Twice: Improving Group Robustness without Training Group Information,
        ICML 2021 (on examples).
    """
    ratio = factor + 1 if adds_one else factor
    if "jtt.flag.clients" not in memory:
        distrust = losses if flag_by == "loss" or confidences is None else -confidences
        memory = remember(memory, "jtt.score", clients, distrust)
        if round_ < warm_up_rounds:
            return Lift(prior, memory, flag_factor=1.0)
        known, scores = memory["jtt.score.clients"], memory["jtt.score.values"]
        flagged = known[_worst(scores, n_flagged, threshold, flag_by)]
        memory = remember(memory, "jtt.flag", flagged, torch.ones(len(flagged)))
        return Lift(prior, memory, restart=restart, flag_factor=1.0)
    lifted = recall(memory, "jtt.flag", clients, default=0.0) > 0
    weights = prior * torch.where(lifted, ratio, 1.0)
    return Lift(weights / weights.sum(), memory, flag_factor=ratio)


def _worst(
    scores: Float[Tensor, " clients"],
    n_flagged: int | None,
    threshold: float | None,
    flag_by: Literal["loss", "confidence"],
) -> Bool[Tensor, " clients"]:
    """Mark the clients to flag: their scores are losses, or negated confidences."""
    if threshold is not None:
        return scores > (threshold if flag_by == "loss" else -threshold)
    flagged = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    flagged[scores.argsort(descending=True, stable=True)[:n_flagged]] = True
    return flagged
