"""What one client holds."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import torch

from strategies.shapes import Bool, Float, Int, Tensor


class Role(StrEnum):
    """The three kinds of client."""

    HONEST_MAJORITY = "honest_majority"
    HONEST_MINORITY = "honest_minority"
    POISONED = "poisoned"


HONEST = (Role.HONEST_MAJORITY, Role.HONEST_MINORITY)


class Shard(NamedTuple):
    """The examples of one client."""

    inputs: Float[Tensor, "examples ..."]
    """Images in [0, 1] as (examples, channels, height, width), or rows of features."""
    labels: Int[Tensor, " examples"]
    groups: Int[Tensor, " examples"]
    """The population each example belongs to, as an index into the dataset's group names."""
    is_poisoned: Bool[Tensor, " examples"]
    role: Role

    def to(self, device: torch.device) -> "Shard":
        """Return the shard on a device; the same object if it is there already."""
        if self.labels.device == device:
            return self
        return Shard(*(column.to(device) for column in self[:4]), role=self.role)


def pooled(shards: Sequence[Shard], role: Role) -> Shard:
    """Return the examples of several shards, in order, as one."""
    columns = zip(*(shard[:4] for shard in shards), strict=True)
    inputs, labels, groups, is_poisoned = (torch.cat(column) for column in columns)
    return Shard(inputs, labels, groups, is_poisoned, role)
