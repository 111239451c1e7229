"""What a method inside a client makes of a round."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import nn

from clients.shard import Shard
from clients.training import Objective, State
from strategies.memory import Memory
from strategies.shapes import Tensor


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

    def lesson(
        self,
        model: nn.Module,
        shard: Shard,
        round_: int,
        memory: Memory,
        rng: np.random.Generator,
    ) -> Lesson:
        """Return what to train on.

        Args:
            model: Holds the received parameters until this returns, and is set to be tested.
            shard: The client's own examples, on the model's device.
            round_: The round, from 1.
            memory: What the client kept of its last round; empty in its first.
            rng: Of this client and round.
        """
        ...
