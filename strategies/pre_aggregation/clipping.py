"""Clipping before a rule: no row longer than a bound."""

import torch

from strategies.aggregation.aggregate import norms_of
from strategies.pre_aggregation.mixed import Mixed
from strategies.shapes import Float, Tensor


def clipping(updates: Float[Tensor, "n d"], max_norm: float) -> Mixed:
    """Scale every row that is longer than a fixed bound down to it.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        max_norm: The bound, L2, in parameter units, > 0. ByzFL's default is 2.

    Returns:
        The clipped rows, and the factors min(1, bound / norm) on the diagonal of the mixing.

    References:
        Sun et al., Can You Really Backdoor Federated Learning?, 2019.
    """
    norms = norms_of(updates)
    return _clipped(updates, norms, norms.new_tensor(max_norm))


def adaptive_clipping(updates: Float[Tensor, "n d"], n_malicious: int) -> Mixed:
    """Clip the k = ⌊2 (f / n) (n - f)⌋ longest rows to the longest of the others.

    Honest rows may be among those shortened, and one of the longest honest rows bounds them all,
    so that the step cannot ruin a rule's guarantee as a fixed bound can.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: The bound f the defence assumes, < n / 2.

    Returns:
        The clipped rows, and the factors min(1, bound / norm) on the diagonal of the mixing.

    References:
        Allouah et al., Adaptive Gradient Clipping for Robust Federated Learning, ICLR 2025 (ARC).
    """
    n = len(updates)
    norms = norms_of(updates)
    n_clipped = min(2 * n_malicious * (n - n_malicious) // n, n - 1)
    bound = norms.sort(descending=True).values[n_clipped]
    return _clipped(updates, norms, bound)


def _clipped(
    updates: Float[Tensor, "n d"], norms: Float[Tensor, " n"], bound: Float[Tensor, ""]
) -> Mixed:
    factors = torch.where(norms > bound, bound / norms, 1.0)
    return Mixed(updates * factors.to(updates.dtype)[:, None], factors.diag())
