"""Ditto: a personal model for each client beside the common one."""

from dataclasses import dataclass

from clients.local.lesson import Lesson, LocalRound
from clients.local.proximal import PulledTowards


@dataclass(frozen=True)
class Ditto:
    """Train the received model as usual, and a personal one that is pulled towards it.

    The personal model begins as the first one received, lasts over rounds, and sees the same
    batches as the common one.

    References:
        Li et al., Ditto: Fair and Robust Federated Learning Through Personalization, ICML 2021;
        λ = 1 in its code's scripts, or one of 0.1, 1 and 2 chosen by each client.
    """

    pull: float
    """λ: with 0 each client trains alone."""

    def lesson(self, told: LocalRound) -> Lesson:
        """Return the shard, and the loss of the personal model."""
        return Lesson(told.shard, personal=PulledTowards(self.pull))
