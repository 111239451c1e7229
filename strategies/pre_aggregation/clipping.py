"""Clipping before a rule: no row longer than a bound."""

from collections.abc import Callable

import torch

from strategies.aggregation.aggregate import empty_rows, norms_of
from strategies.aggregation.blocks import each_block, row_blocks
from strategies.aggregation.norm_clipping import clipping_factors
from strategies.aggregation.traits import Bound, Traits
from strategies.pre_aggregation.mixed import Mixed
from strategies.shapes import Float, Tensor

adaptive_clipping_bound = Bound("adaptive_clipping", 2, 1)


def clipping(
    updates: Float[Tensor, "n d"], max_norm: float, out: Float[Tensor, "n d"] | None = None
) -> Mixed:
    """Scale every row that is longer than a fixed bound down to it.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        max_norm: The bound, L2, in parameter units, > 0.
        out: Where the clipped rows are written; new memory by default. If it is ``updates`` itself,
            rows are clipped in place, and those within the bound are not even written.

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
    # Block by block: the rows just measured are still in a cache.
    return _scaled(updates, lambda part: clipping_factors(norms_of(updates[part]), max_norm), out)


@Traits(bound=adaptive_clipping_bound)
def adaptive_clipping(
    updates: Float[Tensor, "n d"], n_malicious: int, out: Float[Tensor, "n d"] | None = None
) -> Mixed:
    """Clip the k = ⌊2 (f / n) (n - f)⌋ longest rows to the longest of the others (ARC).

    Honest rows may be among those shortened, and one of the longest honest rows bounds them all, so
    that the step cannot ruin a rule's guarantee as a fixed bound can.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_malicious: The bound f the defence assumes.
        out: Where the clipped rows are written; new memory by default. If it is ``updates`` itself,
            rows are clipped in place, and those within the bound are not even written.

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
    factors = clipping_factors(norms, norms.sort(descending=True).values[n_clipped])
    return _scaled(updates, lambda part: factors[part], out)


def _scaled(
    updates: Float[Tensor, "n d"],
    factors_of: Callable[[slice], Float[Tensor, " m"]],
    out: Float[Tensor, "n d"] | None,
) -> Mixed:
    """Return all rows times their factors, which are computed block by block."""
    rows = empty_rows(len(updates), updates) if out is None else out
    in_place = rows.data_ptr() == updates.data_ptr()

    def scale(part: slice, _: None) -> Float[Tensor, " m"]:
        factors = factors_of(part)
        if not in_place or (factors < 1).any():
            torch.mul(updates[part], factors.to(updates.dtype)[:, None], out=rows[part])
        return factors

    blocks = row_blocks(updates)
    factors = each_block(blocks, scale, lambda: None, updates.device.type == "cpu")
    return Mixed(rows, torch.cat(factors).diag())
