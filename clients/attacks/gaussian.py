"""Gaussian noise, sent in place of an update or on top of it."""

from typing import Literal

import numpy as np
import torch

from clients.attacks.forged import Forged
from strategies.shapes import Float, Tensor

Convention = Literal["replace", "add"]


def gaussian(
    own: Float[Tensor, "f d"],
    rng: np.random.Generator,
    std: float = 1.0,
    mean: float = 0.0,
    convention: Convention = "replace",
    relative: bool = False,
) -> Forged:
    """Send uᵢ' = z (``replace``) or uᵢ' = uᵢ + z (``add``), with z ~ N(mean, std²) anew in every
    coordinate. Blind.

    Args:
        own: What the attackers would send, local minus global parameters.
        rng: Draws z.
        std: In parameter units. ByzFL and FLPoison replace by N(0, 1), Blades by N(0.1, 0.1²),
            FLANDERS adds N(0, 10²).
        mean: In parameter units.
        convention: Whether noise replaces the update or comes on top of it.
        relative: Whether ``std`` is a multiple of the standard deviation of the attacker's own
            coordinates, as in Ditto (its second attack).

    References:
        Blanchard et al., Machine Learning with Adversaries, NeurIPS 2017 (replace); Li et al.,
        Ditto, ICML 2021 (replace, relative); Gabrielli et al., FLANDERS, 2023 (add).
    """
    noise = torch.from_numpy(rng.standard_normal(tuple(own.shape), dtype=np.float32)).to(own)
    width = std * own.std(dim=1, correction=0, keepdim=True) if relative else std
    noise = noise * width + mean
    return Forged(own + noise if convention == "add" else noise)
