"""Fang's attack with FLANDERS' timing: around a model from before the attackers begin."""

import torch

from clients.attacks import Forged, fang_krum
from strategies.memory import Memory
from strategies.shapes import Float, Tensor

FIRST_ATTACKED = 3


def fang_of_round_1(
    own: Float[Tensor, "f d"],
    seen: Float[Tensor, "m d"],
    received: Float[Tensor, " d"],
    n_assumed: int,
    memory: Memory,
) -> Forged:
    """Move away from the model that the first honest client sent in round 1, from round 3 on.

    Args:
        own: What the attackers would send without this attack, and do send before round 3.
        seen: The honest updates.
        received: The global parameters.
        n_assumed: How many malicious clients the server's rule assumes.
        memory: Holds the round, and the ``anchor`` of :func:`fang_krum`.
    """
    round_ = int(memory["round"]) + 1 if memory else 1
    kept = {"round": torch.tensor(round_), "anchor": memory.get("anchor", received + seen[0])}
    if round_ < FIRST_ATTACKED:
        return Forged(own, kept)
    forged = fang_krum(own, seen, received, n_assumed, kept, around="first_reply")
    return Forged(forged.updates, kept)
