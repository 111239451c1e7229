"""Just Train Twice on the examples inside a client."""

from dataclasses import dataclass

import torch
from torch import nn

from clients.local.lesson import Lesson, LocalRound
from clients.shard import Shard
from clients.training import confidences_in, logits_of
from strategies.shapes import Bool, Tensor

FLAGS = "flagged"


def flagged_by(model: nn.Module, shard: Shard, threshold: float) -> Bool[Tensor, " examples"]:
    """Mark the examples whose label the model gives a probability below a threshold."""
    return confidences_in(logits_of(model, shard.inputs), shard.labels) < threshold


def with_copies(shard: Shard, flagged: Bool[Tensor, " examples"], n_copies: int) -> Shard:
    """Return the shard with ``n_copies`` copies of each flagged example appended."""
    rows = torch.arange(len(shard.labels), device=shard.labels.device)
    rows = torch.cat([rows, rows[flagged].repeat(n_copies)])
    return Shard(*(column[rows] for column in shard[:4]), role=shard.role)


@dataclass(frozen=True)
class ExampleJtt:
    """Flag the client's own examples in a warm-up, then train on all examples and copies of those.

    Each client flags by the model that it receives in the last warm-up round in which it takes
    part. A client that took no part in the warm-up waits for as many rounds again, and then flags
    by the next model that it receives: that one is as well trained, whether or not the server
    started over. The server's model goes on training; together with the server's client-level
    method, at factor 1 and with as many warm-up rounds, it starts over, as in the paper.

    References:
        Liu et al., Just Train Twice: Improving Group Robustness without Training Group Information,
        ICML 2021; its code puts λ copies of an example beside it.
    """

    warm_up_rounds: int
    n_copies: int
    """λ: a flagged example is seen λ + 1 times."""
    threshold: float = 0.5
    """Examples whose label the model gives a lower probability are flagged."""

    def lesson(self, told: LocalRound) -> Lesson:
        """Return the shard, and after the warm-up with copies."""
        flags = told.memory.get(FLAGS)
        warming_up = told.round_ <= self.warm_up_rounds
        # Right after a restart the model knows nothing: it would flag nearly all examples.
        if warming_up or (flags is None and told.round_ >= 2 * self.warm_up_rounds):
            flags = flagged_by(told.model, told.shard, self.threshold)
        if flags is None:
            return Lesson(told.shard)
        flags = flags.to(told.shard.labels.device, torch.bool)
        seen = told.shard if warming_up else with_copies(told.shard, flags, self.n_copies)
        return Lesson(seen, kept=lambda: {FLAGS: flags.to(torch.uint8)})
