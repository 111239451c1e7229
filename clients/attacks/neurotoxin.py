"""Neurotoxin: poison where honest clients hardly ever write, so that the backdoor lasts."""

from dataclasses import dataclass

import torch

from clients.attacks.training_attack import floating
from clients.training import State, StepHook


@dataclass(frozen=True)
class Neurotoxin:
    """Keep w = w₀ in the top share of coordinates by |w₀ - w₋₁|, the global model's last move.

    Honest updates will overwrite those coordinates and leave the others alone. The first time there
    is no last move, and nothing is kept. The paper masks gradients: to hold parameters gives the
    same with plain SGD, and holds with momentum, weight decay and Adam too. The authors' code takes
    the received model's gradient on other clients' clean data in place of the last move, for images
    over all layers together as here.

    References:
        Zhang et al., Neurotoxin: Durable Backdoors in Federated Learning, ICML 2022, algorithm 1.
    """

    share: float = 0.05
    """Share of all coordinates that is kept as received: those of largest magnitude. The authors
    poison the bottom 95 %."""

    @property
    def needs_previous(self) -> bool:
        """The last move is the difference to the last received model."""
        return True

    def hook(self, received: State, previous: State | None) -> StepHook:
        """Return the mask as a projection."""
        masks = {} if previous is None else most_moved(floating(received), previous, self.share)

        def hold(parameters: State, step: int, is_last: bool) -> None:
            for name, value in parameters.items():
                if name in masks:  # to index by a mask would make the host wait for a GPU
                    value.copy_(torch.where(masks[name], received[name], value))

        return hold


def most_moved(one: State, other: State, share: float) -> State:
    """Mark the share of all coordinates, over all layers together, in which two models differ most;
    a tie may go either way."""
    moved = {name: (value - other[name]).abs() for name, value in one.items()}
    flat = torch.cat([value.flatten() for value in moved.values()])
    marked = torch.zeros_like(flat, dtype=torch.bool)
    marked[flat.topk(round(share * len(flat))).indices] = True
    parts = marked.split([value.numel() for value in moved.values()])
    return {name: part.view_as(moved[name]) for name, part in zip(moved, parts, strict=True)}
