"""Attacks that act while an attacker trains: step hooks that hold its parameters to a set."""

from collections.abc import Callable
from typing import Protocol

from clients.training import State, StepHook


class TrainingAttack(Protocol):
    """What an attacker does after its training steps."""

    @property
    def needs_previous(self) -> bool:
        """Whether it needs the model that the attacker received last time."""
        ...

    def hook(
        self, received: State, previous: State | None, clean_gradient: Callable[[], State]
    ) -> StepHook:
        """Return what is run after each step of training from ``received``.

        Args:
            received: The parameters and buffers that training starts from.
            previous: Those of the last round in which the attacker was asked; None in its first.
            clean_gradient: Returns the loss's gradient at ``received`` on the attacker's data as
                they were before any poison.
        """
        ...
