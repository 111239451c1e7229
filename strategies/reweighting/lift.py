"""What every reweighting returns."""

from collections.abc import Callable
from typing import NamedTuple

from strategies.memory import NO_MEMORY, Memory
from strategies.shapes import Float, Tensor


class Lift(NamedTuple):
    """Whom the server lifts in this round, and the step that it takes."""

    weights: Float[Tensor, " n"]
    """Each client's weight before the defence has its say: >= 0, sum 1."""
    memory: Memory = NO_MEMORY
    """State that the method is given back in the next round."""
    step: float = 1.0
    """Multiplies the aggregated update."""
    restart: bool = False
    """Whether the next round starts again from the initial model, in place of this update."""
    flag_factor: float | None = None
    """For a method that flags clients: the factor on the weight of those flagged. None for a method
    that lifts clients by degrees."""
    lengths: Float[Tensor, " n"] | None = None
    """For a method that rescales updates to one length: what it divided each by, already included
    in the weights and the step."""


Reweighter = Callable[..., Lift]
"""A reweighting. It is handed the facts of the round that its parameters name, ``memory`` (what it
returned in the last round; empty in the first) and ``updates``, which it must not modify."""
