"""Training that is pulled towards the received model."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from clients.local.lesson import Lesson, LocalRound
from clients.shard import Shard
from clients.training import State
from strategies.shapes import Float, Int, Tensor


class PulledTowards:
    """The mean cross-entropy + λ / 2 · ||v - w||², v being the model and w the received one."""

    def __init__(self, pull: float) -> None:
        self._pull = pull

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
class FedProx:
    """Add μ / 2 times the squared distance from the received model to the loss.

    Clients with unlike data drift less far apart. The paper's other part, clients that do as much
    work as they can, is ``training.local_steps`` here, the same for all.

    References:
        Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020: μ from 0.001 to 1,
        by dataset.
    """

    pull: float
    """μ: with 0 clients train as usual."""

    def lesson(self, told: LocalRound) -> Lesson:
        """Return the shard, and the loss of the model that is sent."""
        return Lesson(told.shard, objective=PulledTowards(self.pull))
