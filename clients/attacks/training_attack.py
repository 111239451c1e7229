"""Attacks that act while an attacker trains: step hooks that hold its parameters to a set."""

from typing import Protocol

from clients.training import State, StepHook


class TrainingAttack(Protocol):
    """What an attacker does after its training steps."""

    @property
    def needs_previous(self) -> bool:
        """Whether it asks for the model that the attacker received the last time."""
        ...

    def hook(self, received: State, previous: State | None) -> StepHook:
        """Return what is run after each step of training from ``received``.

        Args:
            received: The parameters that training starts from.
            previous: Those of the last round in which the attacker was asked; None in its first.
        """
        ...


def floating(state: State) -> State:
    """Return a model's parameters without counters and other integers."""
    return {name: value for name, value in state.items() if value.is_floating_point()}
