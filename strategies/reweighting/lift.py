"""What every reweighting returns, and how it remembers clients from round to round."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from strategies.shapes import Float, Int, Tensor

Memory = dict[str, Tensor]
"""What a method carries over rounds: named tensors, so that any checkpoint can hold it."""


class Lift(NamedTuple):
    """Whom the server lifts up this round, and by how much it moves."""

    weights: Float[Tensor, " n"]
    """Each client's weight before the defence has its say: >= 0, sum 1."""
    memory: Memory
    """What the method wants to be given back in the next round."""
    step: float = 1.0
    """Multiplies the aggregated update."""
    restart: bool = False
    """Whether the next round starts again from the initial model, in place of this update."""


Reweighter = Callable[..., Lift]
"""A reweighting. It is handed the facts of the round that its parameters name, ``memory`` (what it
returned in the last round; empty in the first) and ``squared_norms`` of the updates."""


def recall(
    memory: Memory, name: str, clients: Int[Tensor, " n"], default: float
) -> Float[Tensor, " n"]:
    """Return what is remembered of each client, in float64; the default for those not yet met."""
    values = torch.full((len(clients),), default, dtype=torch.float64)
    known = memory.get(f"{name}.clients", clients[:0])
    if len(known):
        at = torch.searchsorted(known, clients).clamp(max=len(known) - 1)
        met = known[at] == clients
        values[met] = memory[f"{name}.values"][at[met]]
    return values


def remember(
    memory: Memory, name: str, clients: Int[Tensor, " n"], values: Float[Tensor, " n"]
) -> Memory:
    """Return the memory with these clients' values replaced and all others kept."""
    if f"{name}.clients" in memory:
        known, old = memory[f"{name}.clients"], memory[f"{name}.values"]
        kept = ~torch.isin(known, clients)
        clients = torch.cat([clients, known[kept]])
        values = torch.cat([values, old[kept]])
    order = clients.argsort()
    return {**memory, f"{name}.clients": clients[order], f"{name}.values": values[order]}
