"""Edge-case backdoor: rare examples, as they are, under the wrong label."""

from typing import Literal

import numpy as np
import torch

from clients.poisons.dirty_label_backdoor import dirty_label_backdoor
from clients.poisons.triggers import Look
from clients.shard import Role, Shard
from strategies.shapes import Bool, Int, Tensor

HeldBy = Literal["nobody", "minority", "everyone"]
"""Which honest clients hold the rare examples under their right label: the paper's edge case,
almost edge case and normal case."""


def edge_case_backdoor(
    shard: Shard,
    as_rare: Look,
    rare_group: int,
    source: int,
    target: int,
    fraction: float,
    rng: np.random.Generator,
) -> Shard:
    """Turn a share of a shard into rare examples of the source class, labelled as the target.

    Nothing is stamped: whoever holds such an example at test time triggers the backdoor without
    knowing. The paper takes photographs or digits from another dataset (Southwest Airlines'
    aeroplanes labelled as trucks); here a group of the same dataset is rare.

    Args:
        shard: The attacker's clean shard.
        as_rare: Returns source examples in the rare group's look.
        rare_group: That group's index, which the poisoned examples get.
        source: The class of the rare examples.
        target: What they are labelled as.
        fraction: Share of the whole shard (in the release 100 beside 400 clean ones on CIFAR-10).
        rng: Picks which examples.

    Raises:
        ValueError: If the shard holds too few source examples.

    References:
        Wang et al., Attack of the Tails, NeurIPS 2020.
    """
    poisoned = dirty_label_backdoor(shard, as_rare, target, fraction, rng, source)
    groups = torch.where(poisoned.is_poisoned & ~shard.is_poisoned, rare_group, shard.groups)
    return poisoned._replace(groups=groups)


def rare_examples(
    rare: Bool[Tensor, " n"],
    labels: Int[Tensor, " n"],
    role: Role,
    source: int,
    held_by: HeldBy,
    held_fraction: float,
) -> Bool[Tensor, " n"]:
    """Mark which of a client's clean examples look as the minority's do.

    Args:
        rare: Which of them would do so without an edge case.
        labels: Their classes.
        role: The client's.
        source: The class whose minority examples are the edge cases.
        held_by: ``nobody``: honest clients hold the source class in the majority's look alone;
            ``minority``: everybody holds what they always hold; ``everyone``: majority clients
            hold a share of theirs in the minority's look too.
        held_fraction: That share, rounded to examples.
    """
    if role is not Role.POISONED and held_by == "nobody":
        return rare & (labels != source)
    if role is Role.HONEST_MAJORITY and held_by == "everyone":
        rare = rare.clone()
        rows = (labels == source).nonzero().squeeze(1)
        rare[rows[: round(held_fraction * len(rows))]] = True
    return rare
