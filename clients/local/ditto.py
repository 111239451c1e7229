"""Ditto: a model of one's own beside the common one."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from clients.local.lesson import Lesson
from clients.shard import Shard
from clients.training import State
from strategies.memory import Memory
from strategies.shapes import Float, Int, Tensor


class PulledTowards:
    """The mean cross-entropy + λ / 2 · ||v - w||², v being the model and w the received one."""

    def __init__(self, pull: float) -> None:
        self._pull = pull
        self._received: State = {}
        self._labels = torch.empty(0, dtype=torch.int64)

    def begin(self, received: State, shard: Shard) -> None:
        """Remember the received model and the labels."""
        self._received, self._labels = received, shard.labels

    def loss(
        self,
        parameters: State,
        logits: Float[Tensor, "batch classes"],
        rows: Int[Tensor, " batch"],
    ) -> Tensor:
        """Return the loss of a batch."""
        squares = [(v - self._received[name]).square().sum() for name, v in parameters.items()]
        distance = torch.stack(squares).sum()
        return F.cross_entropy(logits, self._labels[rows]) + self._pull / 2 * distance


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

    def lesson(self, model: nn.Module, shard: Shard, round_: int, memory: Memory) -> Lesson:
        """Return the shard, and the loss of the personal model."""
        del model, round_, memory
        return Lesson(shard, personal=PulledTowards(self.pull))
