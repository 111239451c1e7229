"""Projected gradient descent (PGD): poison, but never leave a ball round the received model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from clients.training import State, StepHook


@dataclass(frozen=True)
class ProjectedDescent:
    """Project the model onto a ball round the received one: w ← w₀ + (w - w₀) min(1, ρ / ‖w - w₀‖).

    This happens after every k-th step and after the last, so the update's norm is at most ρ, and
    what a server clips away is never learnt in the first place.

    References:
        Wang et al., Attack of the Tails: Yes, You Really Can Backdoor Federated Learning, NeurIPS
        2020: ρ = 2 on CIFAR-10 and 1 on EMNIST, every 10 steps.
    """

    radius: float
    """The radius ρ, in parameter units or, if ``relative``, as a multiple of how far the global
    model has moved since the attacker received it the last time (no bound the first time)."""
    every: int | None = 1
    """Steps k from one projection to the next; None for the last step alone."""
    relative: bool = False

    @property
    def needs_previous(self) -> bool:
        """Whether the radius is relative to the last move of the global model."""
        return self.relative

    def hook(
        self, received: State, previous: State | None, clean_gradient: Callable[[], State]
    ) -> StepHook:
        """Return the projection."""

        @cache  # the same in all steps of a training, and a GPU makes the host wait for it
        def bound(names: tuple[str, ...]) -> float:
            if not self.relative:
                return self.radius
            if previous is None:
                return torch.inf
            # Of parameters alone: running means and variances may move far more.
            return self.radius * distance({name: received[name] for name in names}, previous)

        def project(parameters: State, step: int, is_last: bool) -> None:
            if is_last or (self.every is not None and step % self.every == 0):
                project_onto_ball(parameters, received, bound(tuple(parameters)))

        return project


def project_onto_ball(parameters: State, centre: State, radius: float) -> None:
    """Move parameters, in place, to the nearest point within the radius of the centre."""
    length = distance(parameters, centre)
    if length > radius:
        for name, value in parameters.items():
            value.copy_(centre[name] + (value - centre[name]) * (radius / length))


def distance(one: State, other: State) -> float:
    """Return the L2 distance of two models over the tensors of the first."""
    squares = [(v.double() - other[name].double()).square().sum() for name, v in one.items()]
    return sum(torch.stack(squares).tolist()) ** 0.5  # read together: a GPU makes the host wait
