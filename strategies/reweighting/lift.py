"""What every reweighting returns."""

from collections.abc import Callable
from typing import NamedTuple

from strategies.memory import NO_MEMORY, Memory
from strategies.shapes import Float, Tensor


class Lift(NamedTuple):
    """Whom the server lifts up this round, and by how much it moves."""

    weights: Float[Tensor, " n"]
    """Each client's weight before the defence has its say: >= 0, sum 1."""
    memory: Memory = NO_MEMORY
    """What the method wants to be given back in the next round."""
    step: float = 1.0
    """Multiplies the aggregated update."""
    restart: bool = False
    """Whether the next round starts again from the initial model, in place of this update."""
    flag_factor: float | None = None
    """Of a method that flags clients: by what it multiplies the weight of those it flags. None
    where a method lifts everybody by degrees."""
    lengths: Float[Tensor, " n"] | None = None
    """Of a method that brings updates to one length: what it divided each by, which is in their
    weights and in the step."""


Reweighter = Callable[..., Lift]
"""A reweighting. It is handed the facts of the round that its parameters name, ``memory`` (what it
returned in the last round; empty in the first) and ``updates``, which it only reads."""
