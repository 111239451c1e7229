"""What one client holds."""

from enum import StrEnum
from typing import NamedTuple

from strategies.shapes import Bool, Float, Int, Tensor


class Role(StrEnum):
    """The three kinds of client."""

    HONEST_MAJORITY = "honest_majority"
    HONEST_MINORITY = "honest_minority"
    POISONED = "poisoned"


class Shard(NamedTuple):
    """The examples of one client."""

    inputs: Float[Tensor, "examples ..."]
    """Images in [0, 1] as (examples, channels, height, width), or rows of features."""
    labels: Int[Tensor, " examples"]
    groups: Int[Tensor, " examples"]
    """The population each example belongs to, as an index into the dataset's group names."""
    is_poisoned: Bool[Tensor, " examples"]
    role: Role
