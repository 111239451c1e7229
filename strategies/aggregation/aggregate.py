"""What every aggregation rule returns, and the sums that most of them are made of."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from strategies.memory import Memory
from strategies.shapes import Bool, Float, Tensor

CPU_BLOCK = 400_000  # elements worked on at a time: a few copies of them stay in a core's cache
CPU_SUM = 131_072  # columns added up at a time: two float64 copies of them stay in the cache
PIECE = 1_024  # elements whose squares are added up in the type of the updates
SAFE_NORMS = 1e-10, 1e18  # between these no float32 square that matters under- or overflows
GPU_BLOCK = 64_000_000  # a GPU wants few, large kernels
GPU_ROWS = 16  # that a GPU adds up in the type of the updates, before float64 sums them


class Aggregate(NamedTuple):
    """What a rule decided, whom it listened to and whom it suspected."""

    update: Float[Tensor, " d"]
    """Combined update, in parameter units: the server adds it to the global model."""
    weights: Float[Tensor, " n"]
    """Each client's share: >= 0, sum 1, or all 0 where the rule moves nothing."""
    suspicion: Float[Tensor, " n"]
    """The rule's own score: higher means less trusted; constant where a rule has none."""
    memory: Memory = {}  # noqa: RUF012 (nobody writes into it)
    """What a rule that names ``memory`` wants to be given back in the next round."""


Aggregator = Callable[..., Aggregate]
"""A rule. Its first parameter is ``updates``; of the facts that the server has about a round it is
handed those that its other parameters name (:class:`strategies.pipeline.RoundFacts`)."""


class TooFewClientsError(ValueError):
    """Fewer clients than a rule's guarantee needs: the round can be skipped, or the run stopped."""


def prior_or_uniform(
    updates: Float[Tensor, "n d"], prior: Float[Tensor, " n"] | None
) -> Float[Tensor, " n"]:
    """Return the weights a client has before the rule has its say: equal unless given."""
    if prior is None:
        return torch.full((len(updates),), 1 / len(updates), dtype=torch.float64).to(updates.device)
    return prior.to(device=updates.device, dtype=torch.float64)


def column_blocks(updates: Float[Tensor, "n d"]) -> Iterator[slice]:
    """Cut the columns into blocks, so that temporary copies stay small whatever n and d are."""
    n, d = updates.shape
    width = max(1, (GPU_BLOCK if updates.is_cuda else CPU_BLOCK) // max(n, 1))
    for start in range(0, d, width):
        yield slice(start, min(start + width, d))


def weighted_sum(
    updates: Float[Tensor, "n d"], weights: Float[Tensor, " n"], dtype: torch.dtype | None = None
) -> Float[Tensor, " d"]:
    """Sum the rows times their weights, accumulated in float64, row by row (a GPU: by 16 rows).

    A row of weight 0 is not even read: whatever a rejected client sent, it cannot get in.

    Args:
        updates: One row per client, shape (n, d).
        weights: Shape (n,).
        dtype: Of the result; that of the updates by default.
    """
    if updates.is_cuda:
        return grouped_sum(updates, weights).to(dtype or updates.dtype)
    d = updates.shape[1]
    result = torch.empty(d, dtype=dtype or updates.dtype, device=updates.device)
    width = min(d, CPU_SUM)
    total, wide = torch.empty(2, width, dtype=torch.float64, device=updates.device)
    heard = [(row, weight) for row, weight in enumerate(weights.tolist()) if weight]
    for start in range(0, d, width):
        columns = slice(start, min(start + width, d))
        block, summed = updates[:, columns], total[: columns.stop - start].zero_()
        for row, weight in heard:
            summed.add_(wide[: len(summed)].copy_(block[row]), alpha=weight)
        result[columns] = summed
    return result


def grouped_sum(updates: Float[Tensor, "n d"], weights: Float[Tensor, " n"]) -> Float[Tensor, " d"]:
    """Sum the rows times their weights in float64: a few rows by one product, then their sums.

    A GPU reads the matrix once then, in a few kernels; row by row it would wait for each of them,
    and move five times as much memory.
    """
    total = torch.zeros(updates.shape[1], dtype=torch.float64, device=updates.device)
    heard, own = weights.nonzero().flatten().tolist(), weights.to(updates)
    for start in range(0, len(heard), GPU_ROWS):
        rows = heard[start : start + GPU_ROWS]
        beside = rows[-1] - rows[0] < len(rows)  # then no copy is needed
        few = slice(rows[0], rows[-1] + 1) if beside else rows
        total += own[few] @ updates[few]
    return total


def empty_rows(n: int, like: Float[Tensor, "m d"]) -> Float[Tensor, "n d"]:
    """Return a matrix to write into, with as many columns and of the same type as another.

    numpy asks the system for huge pages; touching new memory in small ones takes as long as
    reading the matrix.
    """
    if like.device.type != "cpu":
        return like.new_empty(n, like.shape[1])
    return torch.from_numpy(np.empty((n, like.shape[1]), dtype=like[:0].numpy().dtype))


def dot_products(
    updates: Float[Tensor, "n d"], direction: Float[Tensor, " d"]
) -> Float[Tensor, " n"]:
    """Return the inner product of every row with one vector, in float64."""
    total = torch.zeros(len(updates), dtype=torch.float64, device=updates.device)
    for columns in column_blocks(updates):
        total += updates[:, columns].double() @ direction[columns].double()
    return total


def norms_of(updates: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Return the L2 norm of every row, in float64.

    Squares are all positive, so pieces of a row lose nothing in their own type; their sums are
    added in float64. Rows so long or so short that a float32 square is lost are read again.
    """
    whole = updates.shape[1] // PIECE * PIECE
    pieces = torch.linalg.vector_norm(updates[:, :whole].unflatten(1, (-1, PIECE)), dim=2)
    rest = torch.linalg.vector_norm(updates[:, whole:], dim=1, keepdim=True)
    norms = torch.linalg.vector_norm(torch.cat([pieces, rest], dim=1).double(), dim=1)
    if updates.dtype != torch.float64:
        least, most = SAFE_NORMS
        for row in ((norms < least) | ~(norms < most)).nonzero().flatten().tolist():
            norms[row] = torch.linalg.vector_norm(updates[row].double())
    return norms


def normalised(weights: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Scale weights to sum 1; all-zero weights stay all zero."""
    total = weights.sum()
    return weights / total if total > 0 else torch.zeros_like(weights)


def mean_of_selected(
    updates: Float[Tensor, "n d"],
    selected: Bool[Tensor, " n"],
    prior: Float[Tensor, " n"] | None,
    suspicion: Float[Tensor, " n"],
) -> Aggregate:
    """Average the selected rows in proportion to their prior weights."""
    weights = normalised(prior_or_uniform(updates, prior) * selected)
    return Aggregate(weighted_sum(updates, weights), weights, suspicion)
