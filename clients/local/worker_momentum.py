"""Worker momentum: a client sends a running average of its updates."""

from collections.abc import Mapping
from dataclasses import dataclass

from clients.local.lesson import Lesson, LocalRound
from clients.training import State
from strategies.memory import Memory
from strategies.shapes import Tensor


@dataclass(frozen=True)
class WorkerMomentum:
    """Send m ← β m + (1 - β) u in place of the round's update u; the first m is the first u.

    Updates of honest clients spread less when they are averages over rounds, and robust rules go by
    how far updates are apart. A client keeps its m through rounds in which it takes no part, or in
    which its training ends in non-finite numbers; and m goes on where a server starts over (JTT),
    which clients do not notice. With one local step a round, u is -lr times a gradient, as in the
    paper; with more it is FedAvg's update. Where lr decays, m averages steps with the rates of
    their own rounds: the papers average gradients, and multiply them all by this round's rate.

    References:
        Karimireddy et al., Learning from History for Byzantine Robust Optimization, ICML 2021,
        whose code sends the sum m ← β m + u instead, 1 / (1 - β) times as large in the long run
        (and so are its radii of clipping); Farhadkhani et al., Byzantine Machine Learning Made Easy
        By Resilient Averaging of Momentums, ICML 2022, and ByzFL begin at m = 0, which makes the
        first steps smaller.
    """

    beta: float = 0.9

    def lesson(self, told: LocalRound) -> Lesson:
        """Return the shard, and how the update is averaged."""
        memory = told.memory
        names = [name for name, value in told.model.named_parameters() if value.requires_grad]
        average: State = {}

        def revise(received: State, trained: Mapping[str, Tensor]) -> None:
            for name in names:
                before, after = received[name].to(trained[name].device), trained[name]
                average[name] = after - before
                if memory:
                    average[name].lerp_(memory[name].to(after), self.beta)
                after.copy_(before + average[name])

        def kept() -> Memory:
            return average if all(m.isfinite().all() for m in average.values()) else memory

        return Lesson(told.shard, revise=revise, kept=kept)
