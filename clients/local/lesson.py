"""What a method inside a client makes of a round."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import nn

from clients.shard import Shard
from clients.training import Objective, State
from strategies.memory import Memory
from strategies.shapes import Tensor


class LocalRound(NamedTuple):
    """A round, as a method inside a client is told of it."""

    model: nn.Module
    """Holds the received parameters until there is a lesson, and is set to be tested."""
    shard: Shard
    """The client's own examples, on the model's device."""
    round_: int
    """From 1."""
    memory: Memory
    """What the client kept of its last round; empty in its first."""
    rng: np.random.Generator
    """Of this client and round."""


class Lesson(NamedTuple):
    """What a client trains on this round, and what it minimises."""

    shard: Shard
    objective: Objective | None = None
    """Of the model that is sent; the mean cross-entropy by default."""
    personal: Objective | None = None
    """Of the client's own model, which never leaves it; by default there is none."""
    revise: Callable[[State, Mapping[str, Tensor]], None] | None = None
    """Told the received parameters and the trained ones, changes these in place before they are
    sent."""
    kept: Callable[[], Memory] = dict
    """Returns, after the training, what the client remembers until its next round."""


@runtime_checkable
class LocalMethod(Protocol):
    """A method inside a client. Attackers run it too, on their own data."""

    def lesson(self, told: LocalRound) -> Lesson:
        """Return what to train on."""
        ...
