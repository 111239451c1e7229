"""The pooled training set: all examples in one place, some of them poisoned."""

from dataclasses import dataclass, replace

import torch

from clients.shard import Role, Shard
from strategies.shapes import Bool, Int, Tensor


@dataclass(frozen=True)
class Pool:
    """Training examples, and what only the experimenter knows of them."""

    inputs: Tensor
    """Images in [0, 1] as (n, channels, height, width), or rows of features."""
    labels: Int[Tensor, " n"]
    """As given: a poison may have changed them."""
    groups: Int[Tensor, " n"]
    """By true label and attribute, as indices into the groups' names."""
    annotated: Int[Tensor, " n"]
    """By *given* label and attribute: what an annotator who does not see poisons writes down."""
    is_minority: Bool[Tensor, " n"]
    """Honest examples of minority groups; a poison is never of the minority."""
    is_poisoned: Bool[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def roles(self) -> list[Role]:
        """Return each example's role, in the terms that clients have."""
        roles = list(Role)
        places = torch.where(self.is_poisoned, 2, self.is_minority.long())
        return [roles[place] for place in places.tolist()]


def attackable(pool: Pool, source_groups: frozenset[int] | None) -> Int[Tensor, " m"]:
    """Return the rows that an attacker holds: the majority's, if given only of some groups."""
    held = ~pool.is_minority & ~pool.is_poisoned
    if source_groups is not None:
        held &= torch.isin(pool.groups, torch.tensor(sorted(source_groups)))
    return held.nonzero().squeeze(1)


def shard_of(pool: Pool, rows: Int[Tensor, " m"]) -> Shard:
    """Return some examples as a shard, which is what poisons work on."""
    return Shard(
        pool.inputs[rows],
        pool.labels[rows],
        pool.groups[rows],
        pool.is_poisoned[rows],
        Role.POISONED,
    )


def with_shard(pool: Pool, rows: Int[Tensor, " m"], shard: Shard) -> Pool:
    """Return a pool with some rows replaced by what a poison made of them.

    Groups stay as they were, and so do annotations, which
    :mod:`fl_testbed.centralized.preparation` then brings up to date.
    """
    inputs, labels = pool.inputs.clone(), pool.labels.clone()
    is_poisoned = pool.is_poisoned.clone()
    inputs[rows], labels[rows], is_poisoned[rows] = shard.inputs, shard.labels, shard.is_poisoned
    return replace(pool, inputs=inputs, labels=labels, is_poisoned=is_poisoned)
