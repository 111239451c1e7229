"""Fang's attack on trimmed mean and median: just beyond the honest extremes."""

from typing import Literal

import numpy as np
import torch

from clients.attacks.forged import Forged
from clients.attacks.moments import mean_and_std
from strategies.shapes import Float, Tensor


def fang_trimmed_mean(
    own: Float[Tensor, "f d"],
    seen: Float[Tensor, "m d"],
    received: Float[Tensor, " d"],
    rng: np.random.Generator,
    stretch: float = 2.0,
    values: Literal["models", "updates"] = "models",
) -> Forged:
    """Send, in each coordinate, a value between the honest extreme and b times it, on the side
    that the honest clients move away from.

    Where the honest mean falls (s = -1) the values lie above the honest maximum w: uniformly in
    [w, b w] if w > 0, in [w, w / b] if not. Where it rises they lie below the honest minimum w: in
    [w / b, w] if w > 0, in [b w, w] if not. Each attacker draws its own. Full knowledge. (The paper
    goes by the direction of the rule's own result without an attack; here by the honest mean's.)

    Args:
        own: What the attackers would send, local minus global parameters.
        seen: The honest updates.
        received: The global parameters.
        rng: Draws the values.
        stretch: The factor b, > 1.
        values: The paper stretches parameters (``models``); the code of Min-Max runs this attack
            on ``updates``.

    References:
        Fang et al., Local Model Poisoning Attacks to Byzantine-Robust Federated Learning, USENIX
        Security 2020, sections 3.3 and 3.4.
    """
    base = received if values == "models" else torch.zeros_like(received)
    falls = mean_and_std(seen)[0] < 0
    extreme = torch.where(falls, seen.amax(dim=0), seen.amin(dim=0)) + base
    # Outwards means up where the mean falls and down where it rises.
    outwards = (extreme > 0) == falls
    far = torch.where(outwards, extreme * stretch, extreme / stretch)
    return Forged(_between(own, rng, extreme, far).sub_(base))


def fang_trimmed_mean_partial(
    own: Float[Tensor, "f d"], seen: Float[Tensor, "f d"], rng: np.random.Generator
) -> Forged:
    """Fang's attack on trimmed mean and median where attackers know only each other.

    With mean μ and standard deviation σ of their own honest updates, values lie uniformly in
    [μ + 3σ, μ + 4σ] where μ falls, and in [μ - 4σ, μ - 3σ] where it rises.

    Args:
        own: What the attackers would send, local minus global parameters.
        seen: What they would send if they were honest.
        rng: Draws the values.

    References:
        Fang et al., USENIX Security 2020, section 3.3 (partial knowledge).
    """
    mean, std = mean_and_std(seen)
    away = torch.where(mean < 0, std, -std)
    return Forged(_between(own, rng, mean + 3 * away, mean + 4 * away))


def _between(
    own: Float[Tensor, "f d"],
    rng: np.random.Generator,
    near: Float[Tensor, " d"],
    far: Float[Tensor, " d"],
) -> Float[Tensor, "f d"]:
    shares = torch.from_numpy(rng.random(tuple(own.shape), dtype=np.float32)).to(own)
    return shares.mul_(far - near).add_(near)
