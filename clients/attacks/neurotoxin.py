"""Neurotoxin: poison where honest clients hardly ever write, so that the backdoor lasts."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from clients.training import State, StepHook


@dataclass(frozen=True)
class Neurotoxin:
    """Keep w = w₀ in the top share of coordinates by |∇L(w₀)|, on the attacker's own clean data.

    Honest updates will overwrite those coordinates and leave the others alone. The authors' code
    takes the gradient at the received model too, on other clients' data, and for images over all
    layers together as here. Algorithm 1 takes the last round's aggregate instead, in which an
    attacker of every round finds its own changes, and would be kept from those coordinates. The
    paper masks gradients: holding parameters gives the same with plain SGD, and works with
    momentum, weight decay and Adam too.

    References:
        Zhang et al., Neurotoxin: Durable Backdoors in Federated Learning, ICML 2022.
    """

    share: float = 0.05
    """Share of all parameters that is kept as received. The authors poison the bottom 95 %."""

    @property
    def needs_previous(self) -> bool:
        """Whether the model's last move is needed: it is not, since it contains the attacker's own
        part."""
        return False

    def hook(
        self, received: State, previous: State | None, clean_gradient: Callable[[], State]
    ) -> StepHook:
        """Return the mask as a projection."""
        masks = largest(clean_gradient(), self.share)

        def hold(parameters: State, step: int, is_last: bool) -> None:
            for name, mask in masks.items():  # to index by it would make the host wait for a GPU
                value = parameters[name]
                value.copy_(torch.where(mask, received[name], value))

        return hold


def largest(state: State, share: float) -> State:
    """Mark the share of all coordinates, over all layers together, of largest magnitude; a tie may
    go either way."""
    flat = torch.cat([value.abs().flatten() for value in state.values()])
    marked = torch.zeros_like(flat, dtype=torch.bool)
    marked[flat.topk(round(share * len(flat))).indices] = True
    parts = marked.split([value.numel() for value in state.values()])
    return {n: part.view_as(state[n]) for n, part in zip(state, parts, strict=True)}
