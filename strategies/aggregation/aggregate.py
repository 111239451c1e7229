"""What every aggregation rule returns, and the sums that most of them are made of."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from strategies.aggregation.blocks import column_blocks, each_block, one_torch_thread
from strategies.memory import NO_MEMORY, Memory
from strategies.shapes import Bool, Float, Int, Tensor

SUM_WIDTH = 65_536  # columns added up at a time: two float64 copies of them stay in the cache
PIECE = 1_024  # elements whose squares are added up in the type of the updates
SHORT = 1e-10  # a row's norm below which its entries' squares may underflow in float32
GROUP = 128  # rows added up in the type of the updates, before float64 sums them
SMALL = 2**20  # a matrix of at most this many numbers is summed in float64 throughout
FAR = 64  # times the lower quartile of sizes: larger rows would cost the others digits
KEY_COLUMNS = 4_096  # compared first, at most: they tell apart most rows that are not copies
N_LOOKS, LOOKED_AT = 16, 256  # pieces of a row, and columns in each, that tell its size


class Aggregate(NamedTuple):
    """What a rule decided, whom it listened to and whom it suspected."""

    update: Float[Tensor, " d"]
    """Combined update, in parameter units: the server adds it to the global model."""
    weights: Float[Tensor, " n"]
    """Each client's share: >= 0, sum 1, or all 0 where the rule moves nothing. Those of a
    coordinate-wise rule sum to less where, in some coordinates, only clients of prior 0 survive."""
    suspicion: Float[Tensor, " n"]
    """The rule's own score: higher means less trusted; constant where a rule has none."""
    memory: Memory = NO_MEMORY
    """State that a rule which names ``memory`` is given back in the next round."""
    multipliers: Float[Tensor, " n"] | None = None
    """The factor of each row in the update, where that is not its weight."""
    pulls: Float[Tensor, " n"] | None = None
    """⟨part, update⟩ for each row's part of the update, where that part is not a multiple of the
    row; NaN where unknown."""
    of_directions: bool = False
    """Whether the weights are those of rows rescaled to one length, which no earlier scaling can
    affect."""


Aggregator = Callable[..., Aggregate]
"""A rule. Its first parameter is ``updates``; its other parameters name the facts of the round that
it needs (:class:`strategies.pipeline.RoundFacts`)."""


class TooFewClientsError(ValueError):
    """Fewer clients than a rule's guarantee needs: the round can be skipped, or the run stopped."""


def prior_or_uniform(
    updates: Float[Tensor, "n d"], prior: Float[Tensor, " n"] | None
) -> Float[Tensor, " n"]:
    """Return the clients' weights before the rule has its say: equal unless given."""
    if prior is None:
        share = 1 / len(updates)
        return torch.full((len(updates),), share, dtype=torch.float64, device=updates.device)
    return prior.to(device=updates.device, dtype=torch.float64)


def weighted_sum(
    updates: Float[Tensor, "n d"],
    weights: Float[Tensor, " n"],
    dtype: torch.dtype | None = None,
    norms: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, " d"]:
    """Sum the rows times their weights, in float64 where it matters.

    A matrix of up to a million numbers is summed in float64, which takes no time at that size. In a
    larger one, groups of up to 128 rows are summed in their own type, and the groups' sums in
    float64: in float32 the error is below 1e-5 of the sum of a column's absolute terms, and
    typically 4e-7, however many rows there are. Rows far larger than the others are added in
    float64, so that where they cancel each other the digits of the rest survive. A row's size is
    its norm, if given, or estimated from 4,096 of its columns.

    A row of weight 0 is not added: whatever a rejected client sent, it cannot get in.

    Args:
        updates: One row per client, shape (n, d).
        weights: Shape (n,).
        dtype: Type of the result; that of the updates by default. With float64, all is added in
            float64.
        norms: The rows' norms, if they are known.
    """
    d = updates.shape[1]
    result = torch.empty(d, dtype=dtype or updates.dtype, device=updates.device)
    weights = weights.to(device=updates.device, dtype=torch.float64)
    own = weights.to(updates.dtype)
    weights, exactly = _read(updates, weights, norms, asked=dtype == torch.float64)
    groups = _groups(np.flatnonzero((weights != 0) & ~exactly).tolist())
    told = weights.tolist()
    alone = [(row, told[row]) for row in np.flatnonzero(exactly).tolist()]
    add_up = partial(_add_up, updates, _Terms(own, groups, alone), result)
    on_cpu = updates.device.type == "cpu"
    width = min(d, SUM_WIDTH) if on_cpu else d
    scratch = partial(_scratch, width, updates)
    each_block(column_blocks(updates, width), add_up, scratch, on_cpu)
    return result


class _Terms(NamedTuple):
    """The rows to add up, and in which type."""

    own: Float[Tensor, " n"]
    """Weights in the type of the updates."""
    groups: list[list[slice]]
    """Rows that are added up in that type, group by group."""
    alone: list[tuple[int, float]]
    """Rows that are added in float64, with their weights."""


def _add_up(
    updates: Float[Tensor, "n d"],
    terms: _Terms,
    result: Float[Tensor, " d"],
    columns: slice,
    scratch: tuple[Tensor, Tensor, Tensor],
) -> None:
    block, summed = updates[:, columns], result[columns]
    few, term, exact = (part[: len(summed)] for part in scratch)
    if len(terms.groups) == 1 and not terms.alone:
        _sum_in_own_type(block, terms.own, terms.groups[0], out=summed)
        return
    exact.zero_()
    for group in terms.groups:
        exact.add_(term.copy_(_sum_in_own_type(block, terms.own, group, out=few)))
    for row, weight in terms.alone:
        exact.add_(term.copy_(block[row]), alpha=weight)
    summed.copy_(exact)


def _scratch(width: int, like: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor, Tensor]:
    term, exact = torch.empty(2, width, dtype=torch.float64, device=like.device)
    return like.new_empty(width), term, exact


def _read(
    updates: Float[Tensor, "n d"],
    weights: Float[Tensor, " n"],
    norms: Float[Tensor, " n"] | None,
    asked: bool,
) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
    """Return the weights, on the host, and mark the rows that float32 must not add up with others.

    All is read at once and the rest decided on the host: launching each of these small steps on a
    GPU takes longer than computing them all on the host.
    """
    if asked or updates.dtype == torch.float64 or updates.numel() <= SMALL:
        weights = weights.cpu()
        return weights, (weights != 0) & (updates.dtype != torch.float64)
    if norms is None:
        d = updates.shape[1]
        looked_at = range(0, d, max(LOOKED_AT, d // N_LOOKS))
        # torch's other threads, once woken, spin for milliseconds beside those that add up blocks.
        with one_torch_thread():
            norms = norms_of(
                torch.cat([updates[:, at : at + LOOKED_AT] for at in looked_at], dim=1)
            )
    weights, norms = torch.stack([weights, norms]).cpu()
    heard, sizes = weights != 0, norms * weights.abs()
    ordered = torch.where(heard, sizes, torch.inf).sort().values
    quartile = ordered[heard.sum().view(1) // 4]
    far_larger = sizes > FAR * quartile  # than the row at the lower quartile
    held = torch.finfo(updates.dtype)
    return weights, heard & (far_larger | (weights.abs() < held.tiny) | (weights.abs() > held.max))


def _sum_in_own_type(
    block: Float[Tensor, "n b"],
    weights: Float[Tensor, " n"],
    group: list[slice],
    out: Float[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """Sum a group's rows times their weights, in their own type."""
    torch.mv(block[group[0]].T, weights[group[0]], out=out)
    for rows in group[1:]:
        out.addmv_(block[rows].T, weights[rows])
    return out


def _groups(rows: list[int]) -> list[list[slice]]:
    """Cut rows into groups, and each group into runs of consecutive rows, which need no copy."""
    groups = []
    for start in range(0, len(rows), GROUP):
        group = rows[start : start + GROUP]
        gaps = (i for i, (row, after) in enumerate(pairwise(group), start=1) if after > row + 1)
        parts = pairwise([0, *gaps, len(group)])
        groups.append([slice(group[first], group[end - 1] + 1) for first, end in parts])
    return groups


def empty_rows(n: int, like: Float[Tensor, "m d"]) -> Float[Tensor, "n d"]:
    """Return an uninitialised matrix of n rows, with the columns and the type of another.

    numpy asks the system for huge pages; touching new memory in small pages takes as long as
    reading the matrix.
    """
    if like.device.type != "cpu":
        return like.new_empty(n, like.shape[1])
    return torch.from_numpy(np.empty((n, like.shape[1]), dtype=like[:0].numpy().dtype))


def sorted_rows(values: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """Sort each row, in place on a CPU: numpy takes less than a tenth of torch's time for it."""
    if values.device.type != "cpu":
        return values.sort(dim=1).values
    values.numpy().sort(axis=1)
    return values


def kth_largest(values: Float[Tensor, "m d"], k: int) -> Float[Tensor, " m"]:
    """Return the k-th largest value of each row: numpy takes a tenth of torch's time for it."""
    if values.device.type != "cpu":
        return values.kthvalue(values.shape[1] - k + 1, dim=1).values
    return torch.from_numpy(np.partition(values.numpy(), -k, axis=1)[:, -k])


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

    Squares are all positive, so pieces of a row can be summed in their own type without loss; the
    pieces are then combined in float64. Rows so long or so short that float32 squares overflow or
    underflow are read again.
    """
    whole = updates.shape[1] // PIECE * PIECE
    pieces = torch.linalg.vector_norm(updates[:, :whole].unflatten(1, (-1, PIECE)), dim=2)
    rest = torch.linalg.vector_norm(updates[:, whole:], dim=1, keepdim=True)
    norms = torch.linalg.vector_norm(torch.cat([pieces, rest], dim=1).double(), dim=1)
    if updates.dtype != torch.float64:
        seen = norms.cpu()  # searching on a GPU is more launches, and the host waits all the same
        for row in ((seen < SHORT) | seen.isinf()).nonzero().flatten().tolist():
            norms[row] = torch.linalg.vector_norm(updates[row].double())
    return norms


def normalised(weights: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Scale weights to sum 1; all-zero weights stay all zero."""
    total = weights.sum()
    return torch.where(total > 0, weights / total, 0.0)


def mean_of_selected(
    updates: Float[Tensor, "n d"],
    selected: Bool[Tensor, " n"] | Float[Tensor, " n"],
    prior: Float[Tensor, " n"] | None,
    suspicion: Float[Tensor, " n"],
) -> Aggregate:
    """Average the selected rows in proportion to their prior weights.

    A row may be selected in part: ``selected`` multiplies the priors.
    """
    weights = normalised(prior_or_uniform(updates, prior) * selected.to(updates.device))
    return Aggregate(weighted_sum(updates, weights), weights, suspicion)


def shared_by_copies(
    result: Aggregate,
    updates: Float[Tensor, "n d"],
    prior: Float[Tensor, " n"] | None,
) -> Aggregate:
    """Let identical rows share weight, multiplier and pull by their priors, and suspicion equally.

    They are the same update, and only their order, which is that of roles, decided which of them a
    rule chose.

    Args:
        result: The result of a rule that goes by the updates alone.
        updates: Shape (n, d).
        prior: Weights among the clients; equal by default.
    """
    first = _first_copies(updates)

    def totals(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return torch.zeros_like(values).index_add(0, first, values)[first]

    own = prior_or_uniform(updates, prior)
    parts = own / totals(own).clamp(min=1e-300)

    def shared(values: Float[Tensor, " n"] | None) -> Float[Tensor, " n"] | None:
        return None if values is None else totals(values) * parts

    return result._replace(
        weights=totals(result.weights) * parts,
        suspicion=totals(result.suspicion) / totals(torch.ones_like(result.suspicion)),
        multipliers=shared(result.multipliers),
        pulls=shared(result.pulls),
    )


def _first_copies(updates: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
    """Return, for each row, the index of the first row that is identical to it."""
    first = torch.arange(len(updates), device=updates.device)
    some = updates[:, :: updates.shape[1] // KEY_COLUMNS + 1].contiguous() + 0.0  # -0 becomes 0
    # A sum of integers does not depend on where its row stands in memory: one of floats may.
    keys = some.view(torch.int32).sum(dim=1)
    _, kinds, counts = keys.unique(return_inverse=True, return_counts=True)
    for kind in (counts > 1).nonzero().flatten():
        rows = (kinds == kind).nonzero().flatten()
        while len(rows) > 1:
            is_copy = torch.ones_like(rows, dtype=torch.bool)
            for columns in column_blocks(updates):
                block = updates[rows, columns]
                is_copy &= (block == block[0]).all(dim=1)
            is_copy[0] = True  # though NaN is not equal to itself
            first[rows[is_copy]] = rows[0]
            rows = rows[~is_copy]
    return first
