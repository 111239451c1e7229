"""Which way, and how far, attacks move away from the honest mean."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from strategies.shapes import Float, Tensor

Direction = Literal["unit_vector", "sign", "std", "minus_std"]
TOLERANCE = 1e-5  # of the factor that a search finds


def perturbation(
    direction: Direction, mean: Float[Tensor, " d"], std: Float[Tensor, " d"]
) -> Float[Tensor, " d"]:
    """Return p: -μ / ‖μ‖ (``unit_vector``), -sign(μ) (``sign``), σ (``std``) or -σ (``minus_std``).

    The paper and its code subtract σ from gradients, so that parameters grow: an update is a
    gradient with its sign flipped, so σ is added to it. FL-Byzantine-Library does the same. Blades
    subtracts σ from updates and FLANDERS from models, which is ``minus_std``.

    References:
        Shejwalkar and Houmansadr, Manipulating the Byzantine, NDSS 2021, section IV-B.
    """
    if direction == "unit_vector":
        return -mean / torch.linalg.vector_norm(mean).clamp(min=1e-30)
    if direction == "sign":
        return -mean.sign()
    return std if direction == "std" else -std


@dataclass(frozen=True)
class Halving:
    """A search for the largest factor that fits, by steps of half the size each time."""

    start: float
    """The first factor tried."""
    first_step: float
    """Its distance to the second."""
    otherwise: float = 0.0
    """What is taken if none fits."""

    def __call__(self, fits: Callable[[float], bool]) -> float:
        """Return the last factor that fitted."""
        factor, found, step = self.start, self.otherwise, self.first_step
        while abs(found - factor) > TOLERANCE and step > TOLERANCE / 2:
            if fits(factor):
                found = factor
                factor += step
            else:
                factor -= step
            step /= 2
        return found
