"""What the rules that work coordinate by coordinate share: sort, keep a window, average."""

from collections.abc import Callable

import torch

from strategies.aggregation.aggregate import Aggregate, column_blocks, prior_or_uniform
from strategies.shapes import Float, Int, Tensor

Window = Callable[[Tensor], Tensor]
"""From a block's columns, each sorted, shape (columns, n), to the first rank kept in each."""


def mean_of_windows(
    updates: Float[Tensor, "n d"],
    window: Window,
    n_kept: int,
    prior: Float[Tensor, " n"] | None,
    rows: Int[Tensor, " m"] | None = None,
) -> Aggregate:
    """Average, in each coordinate, the values of ``n_kept`` consecutive ranks.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        window: Says where the kept ranks begin.
        n_kept: How many ranks are kept.
        prior: Weights among the survivors of a coordinate; equal by default.
        rows: The only rows that take part; all by default.

    Returns:
        The mean of the survivors in proportion to their prior; as weights each client's share in
        it, averaged over coordinates; as suspicion the share of coordinates in which it is
        dropped. Of equal values the lowest row counts as the smallest.
    """
    d = updates.shape[1]
    everyone = prior_or_uniform(updates, prior)
    prior = everyone if rows is None else everyone[rows]
    update = torch.empty_like(updates[0])
    shares = torch.zeros_like(prior)
    n_survived = torch.zeros_like(prior)
    for columns in column_blocks(updates):
        block = updates[:, columns] if rows is None else updates[rows, columns]
        ordered = sorted_columns(block)
        survives = in_window(block, ordered, window(ordered), n_kept)
        # Sums of at most n numbers of like size lose nothing in the type of the updates.
        totals = (prior.to(block) @ survives).clamp_(min=1e-30)
        n_survived += (survives @ torch.ones_like(totals)).double()
        shares += (survives @ (1 / totals)).double()
        update[columns] = (prior.to(block) @ survives.mul_(block)) / totals
    weights, dropped = shares * prior / d, 1 - n_survived / d
    if rows is not None:
        weights = torch.zeros_like(everyone).index_copy_(0, rows, weights)
        dropped = torch.ones_like(everyone).index_copy_(0, rows, dropped)
    return Aggregate(update, weights, dropped)


def nearest_to_median(ordered: Float[Tensor, "columns n"], n_kept: int) -> Int[Tensor, " columns"]:
    """Return where the ``n_kept`` values nearest to the median begin; a tie keeps the lower."""
    n = ordered.shape[1]
    median = (ordered[:, (n - 1) // 2] + ordered[:, n // 2]) / 2
    below = median[:, None] - ordered[:, : n - n_kept]
    above = ordered[:, n_kept:] - median[:, None]
    return (above < below).sum(dim=1)


def sorted_columns(block: Float[Tensor, "n columns"]) -> Float[Tensor, "columns n"]:
    """Sort each column; the result has one contiguous row per column."""
    by_column = block.T.clone(memory_format=torch.contiguous_format)  # sorted in place below
    if by_column.device.type == "cpu":  # numpy sorts short rows over ten times faster than torch
        values = by_column.numpy()
        values.sort(axis=1)
        return by_column
    return by_column.sort(dim=1).values


def in_window(
    block: Float[Tensor, "n columns"],
    ordered: Float[Tensor, "columns n"],
    first: Int[Tensor, " columns"],
    n_kept: int,
) -> Float[Tensor, "n columns"]:
    """Mark with 1 the values whose rank in their column is first, …, first + n_kept - 1."""
    low = ordered.gather(1, first[:, None]).squeeze(1)
    high = ordered.gather(1, first[:, None] + n_kept - 1).squeeze(1)
    survives = block.clamp(low, high).eq_(block)
    counts = torch.ones_like(block[:, 0]) @ survives
    tied = (counts != n_kept).nonzero().squeeze(1)
    if len(tied):  # equal values at a border: decide by row
        ranks = block[:, tied].argsort(dim=0, stable=True).argsort(dim=0, stable=True)
        kept = (ranks >= first[tied]) & (ranks < first[tied] + n_kept)
        survives[:, tied] = kept.to(block.dtype)
    return survives
