"""Clipping before a rule: no row longer than a bound."""

import torch

from strategies.aggregation.aggregate import empty_rows, norms_of
from strategies.aggregation.bound import Bound
from strategies.pre_aggregation.mixed import Mixed
from strategies.shapes import Float, Tensor

adaptive_clipping_bound = Bound("adaptive_clipping", 2, 1)


def clipping(updates: Float[Tensor, "n d"], max_norm: float) -> Mixed:
    """Scale every row that is longer than a fixed bound down to it.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        max_norm: The bound, L2, in parameter units, > 0.

    Returns:
        updates: The clipped rows.
        mixing: The factors min(1, bound / norm) on the diagonal.

    Bound:
        None.

    Ties:
        None can arise.

    Variants:
        ByzFL's bound is 2 by default.

    References:
        Sun et al., Can You Really Backdoor Federated Learning?, 2019.
    """
    norms = norms_of(updates)
    return _clipped(updates, norms, norms.new_tensor(max_norm))


def adaptive_clipping(updates: Float[Tensor, "n d"], n_malicious: int) -> Mixed:
    """Clip the k = ⌊2 (f / n) (n - f)⌋ longest rows to the longest of the others (ARC).

    Honest rows may be among those shortened, and one of the longest honest rows bounds them all, so
    that the step cannot ruin a rule's guarantee as a fixed bound can.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: The bound f the defence assumes.

    Returns:
        updates: The clipped rows.
        mixing: The factors min(1, bound / norm) on the diagonal.

    Bound:
        n >= 2f + 1, else TooFewClientsError: k >= f only where honest clients are a majority.

    Ties:
        None can arise: rows as long as the bound stay as they are.

    Variants:
        ByzFL is the same, and takes any f <= n.

    References:
        Allouah et al., Adaptive Gradient Clipping for Robust Federated Learning, ICLR 2025.
    """
    n = len(updates)
    adaptive_clipping_bound(n, n_malicious)
    norms = norms_of(updates)
    n_clipped = 2 * n_malicious * (n - n_malicious) // n
    bound = norms.sort(descending=True).values[n_clipped]
    return _clipped(updates, norms, bound)


def _clipped(
    updates: Float[Tensor, "n d"], norms: Float[Tensor, " n"], bound: Float[Tensor, ""]
) -> Mixed:
    factors = torch.where(norms > bound, bound / norms, 1.0)
    rows = empty_rows(len(updates), updates)
    torch.mul(updates, factors.to(updates.dtype)[:, None], out=rows)
    return Mixed(rows, factors.diag())
