"""Norm clipping: no client may pull further than a bound."""

import torch

from strategies.aggregation.aggregate import (
    Aggregate,
    normalised,
    norms_of,
    prior_or_uniform,
    weighted_sum,
)
from strategies.shapes import Float, Tensor


def norm_clipping(
    updates: Float[Tensor, "n d"],
    max_norm: float | None = None,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Scale every update down to a norm bound, then average.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        max_norm: The bound M, L2, in parameter units; by default the median norm of the round,
            as Ditto's experiments do (midway between the two middle norms for even n).
        prior: Each client's weight before clipping; equal by default.

    Returns:
        Σ prior · factor · update with factor = min(1, M / norm); the products prior · factor,
        scaled to sum 1, as weights; the norms as suspicion.

    References:
        Sun et al., Can You Really Backdoor Federated Learning?, 2019 (fixed bound);
        Li et al., Ditto, ICML 2021 (median bound).
    """
    norms = norms_of(updates)
    bound = norms.quantile(0.5) if max_norm is None else norms.new_tensor(max_norm)
    factors = torch.where(norms > bound, bound / norms, 1.0)
    effective = prior_or_uniform(updates, prior) * factors
    return Aggregate(weighted_sum(updates, effective), normalised(effective), norms)
