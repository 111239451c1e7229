"""Ditto: a model of one's own beside the common one."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from clients.local.lesson import Lesson
from clients.local.proximal import PulledTowards
from clients.shard import Shard
from strategies.memory import Memory


@dataclass(frozen=True)
class Ditto:
    """Train the received model as ever, and a personal one that is pulled towards it.

    The personal model begins as the first one received, lasts over rounds, and sees the same
    batches as the common one.

    References:
        Li et al., Ditto: Fair and Robust Federated Learning Through Personalization, ICML 2021;
        λ = 1 by default in its code, or one of 0.1, 1 and 2 chosen by each client.
    """

    pull: float
    """λ: 0 is training alone."""

    def lesson(
        self,
        model: nn.Module,
        shard: Shard,
        round_: int,
        memory: Memory,
        rng: np.random.Generator,
    ) -> Lesson:
        """Return the shard, and the loss of the personal model."""
        del model, round_, memory, rng
        return Lesson(shard, personal=PulledTowards(self.pull))
