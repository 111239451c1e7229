"""Group DRO over the groups of the examples inside a client."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from clients.local.lesson import Lesson, LocalRound
from clients.shard import Shard
from clients.training import State
from strategies.memory import Memory, recall, remember
from strategies.reweighting import exponentiated_gradient
from strategies.shapes import Float, Int, Tensor

WEIGHTS = "group-weights"


class GroupWeights:
    """A loss that weighs groups by how badly they are served, and steps at every batch.

    q ← q · exp(η · the groups' mean losses in the batch), scaled to sum 1; the loss is Σ q · the
    groups' mean losses. A group without an example in the batch has loss 0, as in the authors'
    code.

    Args:
        first: The initial weights, one per group, in the order of the groups held.
        step_size: η.
    """

    def __init__(self, first: Float[Tensor, " groups"], step_size: float) -> None:
        self._first, self._step_size = first, step_size
        self.weights = first

    def begin(self, received: State, shard: Shard) -> None:
        """Remember labels and groups, and take the first weights."""
        self._labels = shard.labels
        self._groups = shard.groups.unique(return_inverse=True)[1]
        self.weights = self._first.to(shard.labels.device)

    def loss(
        self,
        parameters: State,
        logits: Float[Tensor, "batch classes"],
        rows: Int[Tensor, " batch"],
    ) -> Tensor:
        """Return the weighted loss of a batch."""
        losses = F.cross_entropy(logits, self._labels[rows], reduction="none")
        member = F.one_hot(self._groups[rows], len(self.weights)).to(losses)
        by_group = member.T @ losses / member.sum(dim=0).clamp(min=1)
        served = by_group.detach().double()
        self.weights = exponentiated_gradient(self.weights, served, self._step_size)
        return (self.weights.to(by_group) * by_group).sum()


@dataclass(frozen=True)
class ExampleGroupDro:
    """Group DRO inside a client, over the groups that it holds; q lasts over rounds.

    Batches are drawn as usual; the paper draws from all groups equally often, so that fewer batches
    lack a small one. A client with one group trains as usual. An attacker may hold a group only in
    rounds in which it attacks: in the others that group keeps its weight. A training that ends in
    non-finite weights leaves them as they were.

    References:
        Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, ICLR 2020.
    """

    step_size: float

    def lesson(self, told: LocalRound) -> Lesson:
        """Return the shard and the weighted loss."""
        memory = told.memory
        held = told.shard.groups.unique().cpu()
        first = recall(memory, WEIGHTS, held, default=1 / len(held))
        mass = 1.0  # less the weight of groups that are not held now
        if memory:
            others = ~torch.isin(memory[f"{WEIGHTS}.clients"], held)
            mass -= memory[f"{WEIGHTS}.values"][others].sum().item()
        weighted = GroupWeights(first, self.step_size)

        def kept() -> Memory:
            after = weighted.weights.cpu()
            if not after.isfinite().all():
                return memory
            return remember(memory, WEIGHTS, held, after * mass)

        return Lesson(told.shard, weighted, kept=kept)
