"""What a rule or a reweighting carries from round to round, and how it remembers clients."""

from collections.abc import Iterable

import torch

from strategies.shapes import Bool, Float, Int, Tensor

Memory = dict[str, Tensor]
"""Named tensors, so that any checkpoint can hold them."""
NO_MEMORY: Memory = {}
"""The memory of a method that carries nothing over. A memory once returned is never modified."""


def client_ids(node_ids: Iterable[int]) -> Int[Tensor, " n"]:
    """Return node ids as torch holds them, signed; those of Flower's SuperLink are unsigned."""
    signed = [(node_id + 2**63) % 2**64 - 2**63 for node_id in node_ids]
    return torch.tensor(signed, dtype=torch.int64)


def can_go_on(strategy: object) -> bool:
    """Whether a strategy can save what it carries from round to round, and restore it."""
    return hasattr(strategy, "state_dict") and hasattr(strategy, "load_state_dict")


def recall(
    memory: Memory,
    name: str,
    clients: Int[Tensor, " n"],
    default: float,
    shape: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> Float[Tensor, "n *shape"]:
    """Return what is remembered of each client, or the default for clients not yet seen.

    The result is on the given device, by default on that of the clients' ids.
    """
    device = device or clients.device
    known = memory.get(f"{name}.clients", clients[:0]).to(clients.device)
    if len(known) and torch.equal(known, clients):  # everybody, in order: one copy, not two
        return memory[f"{name}.values"].to(device).to(dtype, copy=True)
    values = torch.full((len(clients), *shape), default, dtype=dtype, device=device)
    if len(known):
        at, met = places(memory, name, clients)
        remembered = memory[f"{name}.values"].to(device)
        values[met] = remembered[at[met]].to(dtype)
    return values


def places(
    memory: Memory, name: str, clients: Int[Tensor, " n"]
) -> tuple[Int[Tensor, " n"], Bool[Tensor, " n"]]:
    """Return the row in which each client is remembered, and whether it is (any row if not).

    At least one client must be remembered under the name.
    """
    known = memory[f"{name}.clients"].to(clients.device)
    at = torch.searchsorted(known, clients).clamp(max=len(known) - 1)
    return at, known[at] == clients


def remember(
    memory: Memory, name: str, clients: Int[Tensor, " n"], values: Float[Tensor, "n *shape"]
) -> Memory:
    """Return the whole memory, with these clients' values replaced and all others kept.

    Other new entries are added to the result: ``{**remember(...), "direction": new}``.
    """
    if f"{name}.clients" in memory:
        known = memory[f"{name}.clients"].to(clients.device)
        kept = ~torch.isin(known, clients)
        if kept.any():
            clients = torch.cat([clients, known[kept]])
            values = torch.cat([values, memory[f"{name}.values"].to(values.device)[kept]])
    order = clients.argsort()
    if not torch.equal(order, torch.arange(len(order), device=order.device)):
        clients, values = clients[order], values[order]
    return {**memory, f"{name}.clients": clients, f"{name}.values": values}
