"""Norm clipping with a little noise."""

import numpy as np
import torch

from strategies.aggregation.aggregate import Aggregate
from strategies.aggregation.norm_clipping import norm_clipping
from strategies.shapes import Float, Tensor


def weak_dp(
    updates: Float[Tensor, "n d"],
    rng: np.random.Generator,
    max_norm: float,
    noise_std: float,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Clip every update to a norm bound, average, and add Gaussian noise to each parameter.

    "Weak", because the noise that hides a backdoor is far below what differential privacy needs.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        rng: Draws the noise.
        max_norm: The bound M, L2, in parameter units.
        noise_std: σ of the noise on each parameter of the average, in parameter units.
        prior: Each client's weight before clipping; equal by default.

    Returns:
        update: The noisy average of the clipped updates.
        weights: The products prior · min(1, M / norm), scaled to sum 1.
        suspicion: The L2 norms, in parameter units.

    Bound:
        None: no client moves it by more than its prior times M.

    Ties:
        None can arise.

    Variants:
        M = 5 and σ = 0.025 in BackFed, M = 3 and σ = 0.002 in FLPoison, which adds the noise to
        every update before the average.

    References:
        Sun et al., Can You Really Backdoor Federated Learning?, 2019.
    """
    clipped = norm_clipping(updates, max_norm, prior)
    return clipped._replace(update=with_noise(clipped.update, noise_std, rng))


def with_noise(
    update: Float[Tensor, " d"], std: float, rng: np.random.Generator
) -> Float[Tensor, " d"]:
    """Add independent Gaussian noise to every parameter."""
    noise = torch.from_numpy(rng.standard_normal(len(update), dtype=np.float32))
    return update + std * noise.to(update)
