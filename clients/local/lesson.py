"""What a method inside a client does in a round."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import nn

from clients.shard import Shard
from clients.training import Objective, State
from strategies.memory import Memory
from strategies.shapes import Tensor


class LocalRound(NamedTuple):
    """What a method inside a client is told about a round."""

    model: nn.Module
    """Holds the received parameters until the lesson is returned; in evaluation mode."""
    shard: Shard
    """The client's own examples, on the model's device."""
    round_: int
    """From 1."""
    memory: Memory
    """What the client kept of its last round; empty in its first."""
    rng: np.random.Generator
    """The random numbers of this client and round."""


class Lesson(NamedTuple):
    """What a client trains on this round, and what it minimises."""

    shard: Shard
    objective: Objective | None = None
    """What the model that is sent minimises; by default the mean cross-entropy."""
    personal: Objective | None = None
    """What the client's own model, which never leaves it, minimises; by default there is no such
    model."""
    revise: Callable[[State, Mapping[str, Tensor]], None] | None = None
    """Called with the received and the trained parameters; changes the latter in place before they
    are sent."""
    kept: Callable[[], Memory] = dict
    """Returns, after the training, what the client remembers until its next round."""


@runtime_checkable
class LocalMethod(Protocol):
    """A method inside a client. Attackers run it too, on their own data."""

    def lesson(self, told: LocalRound) -> Lesson:
        """Return what to train on."""
        ...
