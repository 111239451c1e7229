"""Just Train Twice, with clients in place of examples."""

from collections.abc import Collection

import torch

from strategies.memory import Memory, recall, remember
from strategies.reweighting.lift import Lift
from strategies.shapes import Float, Int, Tensor


def jtt(
    clients: Int[Tensor, " n"],
    losses: Float[Tensor, " n"],
    prior: Float[Tensor, " n"],
    round_: int,
    memory: Memory,
    warm_up_rounds: int,
    n_flagged: int,
    factor: float,
    restart: bool = True,
    flag_instead: Collection[int] | None = None,
) -> Lift:
    """Train briefly, flag the clients with the largest loss, and train again with them lifted.

    The flags are set once, at the end of the last warm-up round, by the loss of the model that was
    received in it (of clients not sampled then, by their latest loss). A warm-up round that the
    server had to skip puts this off to the next one. From then on the weights are prior · factor
    for flagged clients and prior for others, scaled to sum 1.

    Args:
        clients: Ids of the round's clients, shape (n,).
        losses: Mean loss of the received model on each client's data, shape (n,).
        prior: Weights before any lift, shape (n,), sum 1.
        round_: The round, from 1.
        memory: Each client's latest loss; once they are set, who is flagged.
        warm_up_rounds: Rounds of plain averaging before the flags are set, >= 1.
        n_flagged: How many clients to flag.
        factor: The upweighting λ of a flagged client; 1 lifts nobody.
        restart: Whether to begin again from the initial model after the warm-up, as JTT does.
        flag_instead: An oracle: flag these clients, whatever their losses.

    Returns:
        weights: prior during the warm-up; then prior · factor if flagged, scaled to sum 1.
        step: 1.
        restart: True in the last warm-up round, unless switched off.

    Bound:
        None: attackers whose losses are large are flagged like a minority.

    Ties:
        Of equal losses the lowest ids are flagged.

    Variants:
        The authors' code flags examples that the model gets wrong and shows each λ + 1 times in
        all, with λ in {20, 50, 100}. The client-level form is this project's own.

    References:
        Liu et al., Just Train Twice: Improving Group Robustness without Training Group Information,
        ICML 2021 (on examples).
    """
    if "jtt.flag.clients" not in memory:
        memory = remember(memory, "jtt.loss", clients, losses)
        if round_ < warm_up_rounds:
            return Lift(prior, memory)
        known = memory["jtt.loss.clients"]
        if flag_instead is None:
            worst = memory["jtt.loss.values"].argsort(descending=True, stable=True)[:n_flagged]
        else:
            worst = torch.isin(known, torch.tensor(sorted(flag_instead), dtype=known.dtype))
        flagged = known[worst]
        memory = remember(memory, "jtt.flag", flagged, torch.ones(len(flagged)).double())
        return Lift(prior, memory, restart=restart)
    lifted = recall(memory, "jtt.flag", clients, default=0.0) > 0
    weights = prior * torch.where(lifted, factor, 1.0)
    return Lift(weights / weights.sum(), memory)
