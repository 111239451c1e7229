"""What the rules that work coordinate by coordinate share: sort, keep a window, average."""

import torch

from strategies.aggregation.aggregate import (
    Aggregate,
    dot_products,
    prior_or_uniform,
    shared_by_copies,
    sorted_rows,
)
from strategies.aggregation.blocks import column_blocks, each_block
from strategies.shapes import Float, Int, Tensor

PIECE = 512  # columns added up in the type of the updates, before float64 sums them
FAINT = 1e-30  # float32 sums of products that are all below it may have lost digits
LIGHT = 1e-25  # a prior below it is summed in float64


def mean_of_windows(
    updates: Float[Tensor, "n d"],
    first: int | None,
    n_kept: int,
    prior: Float[Tensor, " n"] | None,
    rows: Int[Tensor, " m"] | None = None,
) -> Aggregate:
    """Average, in each coordinate, the values of ``n_kept`` consecutive ranks.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        first: The first rank that is kept, from 0; None keeps the ranks nearest to the median.
        n_kept: How many ranks are kept.
        prior: Weights among the survivors of a coordinate; equal by default.
        rows: The only rows that take part; all by default.

    Returns:
        The mean of the survivors in proportion to their prior; as weights, each client's share in
        it, averaged over coordinates; as suspicion, the share of coordinates in which the client is
        dropped; as pull, the inner product of its part of the mean with the mean. Equal values
        share the kept ranks equally: rows stand in the order of roles, so deciding ties by row
        would be deciding them by role.
    """
    d = updates.shape[1]
    everyone = prior_or_uniform(updates, prior)
    prior = everyone if rows is None else everyone[rows]
    own, least = _as_summed(prior, updates.dtype)
    update = torch.empty_like(updates[0])

    def average(columns: slice, scratch: Float[Tensor, "2 size"]) -> Float[Tensor, "3 n"]:
        """Set the update's columns; return in how many each row survives, its shares and pulls."""
        block = updates[:, columns] if rows is None else updates[rows, columns]
        by_column, by_row = (part[: block.numel()] for part in scratch)
        ordered = sorted_rows(by_column.view(block.T.shape).copy_(block.T))
        if first is None:
            begins = nearest_to_median(ordered, n_kept)
        else:
            begins = torch.full_like(ordered[:, 0], first, dtype=torch.int64)
        survives = in_window(block, ordered, begins, n_kept, by_row.view(block.shape))
        survives = survives.to(own.dtype)
        totals = (own @ survives).clamp_(min=least)
        survived = _sums_of_shares(survives)
        share = _sums_of_shares(survives, 1 / totals)
        update[columns] = (own @ survives.mul_(block)) / totals
        pulls = _sums_over_columns(survives, update[columns] / totals)
        return torch.stack([survived, share, pulls])

    told = prior.new_zeros(3, len(prior))
    blocks = list(column_blocks(updates))
    size = len(updates) * (blocks[0].stop if blocks else 0)
    found = each_block(
        blocks, average, lambda: updates.new_empty(2, size), updates.device.type == "cpu"
    )
    for block in found:
        told += block
    n_survived, shares, pulls = told
    weights, dropped, pulls = shares * prior / d, 1 - n_survived / d, pulls * prior
    if rows is not None:
        weights, dropped, pulls = (
            torch.full_like(everyone, others).index_copy_(0, rows, own)
            for own, others in ((weights, 0), (dropped, 1), (pulls, 0))
        )
    return shared_by_copies(Aggregate(update, weights, dropped, pulls=pulls), updates, everyone)


def _as_summed(prior: Float[Tensor, " n"], dtype: torch.dtype) -> tuple[Float[Tensor, " n"], float]:
    """Return a prior in the type in which it is summed, and the least sum to divide by.

    Sums of at most n numbers of similar size lose nothing in the type of the updates. But a lift
    may leave some clients e^-100 of the others' weight: where only they survive, the mean is still
    theirs.
    """
    if (prior.where(prior > 0, torch.inf) < LIGHT).any():
        return prior, 1e-300
    return prior.to(dtype), 1e-30


def nearest_to_median(ordered: Float[Tensor, "columns n"], n_kept: int) -> Int[Tensor, " columns"]:
    """Return where the ``n_kept`` values nearest to the median begin; a tie keeps the lower."""
    n = ordered.shape[1]
    median = (ordered[:, (n - 1) // 2] + ordered[:, n // 2]) / 2
    below = median[:, None] - ordered[:, : n - n_kept]
    above = ordered[:, n_kept:] - median[:, None]
    return (above < below).sum(dim=1)


def _sums_over_columns(
    block: Float[Tensor, "n columns"], factors: Float[Tensor, " columns"]
) -> Float[Tensor, " n"]:
    """Return each row's sum of products with the factors, in float64.

    A float32 sum of tens of thousands of similar numbers is off by 1e-5. On a CPU, pieces are
    summed in float32 and their sums in float64: that is off by 1e-6 at most and takes two thirds of
    the time of float64 throughout. Products outside float32's range (updates beyond 1e19, or all
    below 1e-15) are summed in float64 there too.
    """
    if block.device.type != "cpu":
        return dot_products(block, factors)
    pieces = zip(block.split(PIECE, dim=1), factors.split(PIECE), strict=True)
    sums = torch.stack([piece.mv(part) for piece, part in pieces]).double().sum(dim=0)
    return sums if FAINT < sums.abs().max() < torch.inf else dot_products(block, factors)


def _sums_of_shares(
    survives: Float[Tensor, "n columns"], factors: Float[Tensor, " columns"] | None = None
) -> Float[Tensor, " n"]:
    """Return each row's sum of shares, times factors from 1 to 1e30 if any: no product is lost.

    A GPU adds up a row's float32 as a tree, which is off by 1e-6 at most; float64 would write and
    read a copy of the block, twice its size.
    """
    if survives.device.type == "cpu":
        factors = torch.ones_like(survives[0]) if factors is None else factors
        return _sums_over_columns(survives, factors)
    return (survives if factors is None else survives * factors).sum(dim=1).double()


def in_window(
    block: Float[Tensor, "n columns"],
    ordered: Float[Tensor, "columns n"],
    first: Int[Tensor, " columns"],
    n_kept: int,
    out: Float[Tensor, "n columns"],
) -> Float[Tensor, "n columns"]:
    """Mark with 1 in ``out`` the values whose rank in their column is first, first + 1, …

    If only some of several equal values have such a rank, each is marked with the fraction that
    have.
    """
    low = ordered.gather(1, first[:, None]).squeeze(1)
    high = ordered.gather(1, first[:, None] + n_kept - 1).squeeze(1)
    survives = torch.clamp(block, low, high, out=out).eq_(block)
    counts = torch.ones_like(block[:, 0]) @ survives
    tied = (counts != n_kept).nonzero().squeeze(1)
    if len(tied):
        values, ranks = block[:, tied].T, torch.arange(n_kept, device=block.device)
        kept = ordered[tied].gather(1, first[tied, None] + ranks)
        shares = survives[:, tied].T
        for border in (low[tied, None], high[tied, None]):
            equal = values == border
            part = (kept == border).sum(dim=1).to(shares) / equal.sum(dim=1)
            shares = torch.where(equal, part[:, None], shares)
        survives[:, tied] = shares.T
    return survives
