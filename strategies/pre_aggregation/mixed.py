"""What every pre-aggregation returns, and how results for its rows are pulled back to clients."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from strategies.aggregation.aggregate import Aggregate, empty_rows, normalised
from strategies.aggregation.blocks import column_blocks
from strategies.shapes import Float, Tensor

SPARSE = 5  # old rows in each new one, up to which adding them up beats a matrix product


class Mixed(NamedTuple):
    """New rows, each a combination of the old ones."""

    updates: Float[Tensor, "m d"]
    """The rows that the rule gets to see, ``mixing @`` the rows that came in."""
    mixing: Float[Tensor, "m n"]
    """How much of each old row (a column) is in each new one, >= 0."""


PreAggregator = Callable[..., Mixed]
"""A pre-aggregation. It gets the rows, and those of ``prior``, ``rng`` and ``out`` that its
parameters name. ``out`` is None or, where nobody else needs them, the rows themselves: then it may
return these, each scaled in place. With None it must leave the rows unchanged."""


def mixed_rows(updates: Float[Tensor, "n d"], mixing: Float[Tensor, "m n"]) -> Float[Tensor, "m d"]:
    """Return ``mixing @ updates``, in the type of the updates.

    Args:
        updates: One row per client, shape (n, d).
        mixing: Shape (m, n), with at least one nonzero share in each row.
    """
    rows = empty_rows(len(mixing), updates)
    if mixing.count_nonzero() <= SPARSE * len(mixing):
        shares = [
            [(i, share) for i, share in enumerate(of_row) if share] for of_row in mixing.tolist()
        ]
        for columns in column_blocks(updates[:1]):
            for row, ((first, share), *others) in zip(rows[:, columns], shares, strict=True):
                torch.mul(updates[first, columns], share, out=row)
                for i, share in others:
                    row.add_(updates[i, columns], alpha=share)
        return rows
    for columns in column_blocks(updates):
        rows[:, columns] = mixing.to(updates.dtype) @ updates[:, columns]
    return rows


def prior_of_rows(mixing: Float[Tensor, "m n"], prior: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
    """Return the new rows' prior: the sum of its members' for a bucket, else the row's own."""
    members = mixing > 0
    is_bucket = len(mixing) < mixing.shape[1] or bool((members.sum(dim=0) == 1).all())
    return members.to(prior) @ prior if is_bucket else prior  # buckets of one come in any order


def _pulls_of_clients(
    pulls: Float[Tensor, " m"], mixing: Float[Tensor, "m n"]
) -> Float[Tensor, " n"] | None:
    """Return the clients' pulls where each row is a single client's; None where rows are shared."""
    part_of = mixing != 0
    alone = (part_of.sum(dim=1) <= 1).all()
    return pulls.double() @ part_of.double() if alone or pulls.isnan().any() else None


def pulled_back(
    result: Aggregate, mixing: Float[Tensor, "m n"], scales: Float[Tensor, " n"] | None = None
) -> Aggregate:
    """Return a rule's result for mixed rows as one for clients.

    A client's weight is what it contributes to the update through all rows, scaled to sum 1; its
    suspicion is that of the rows it is in, averaged by how much of it is in each.

    Args:
        result: The rule's result for the mixed rows.
        mixing: How much of each client is in each row.
        scales: The factors of a lift that came before. They count only where weights are of
            directions: a row's weight is then shared by its clients in proportion to their scaled
            part in it.
    """
    shares = mixing / mixing.sum(dim=0).clamp(min=1e-300)
    parts = mixing
    if result.of_directions:
        parts = mixing if scales is None else mixing * scales
        parts = parts / parts.sum(dim=1, keepdim=True).clamp(min=1e-300)
    multiplied = result.weights if result.multipliers is None else result.multipliers
    return result._replace(
        weights=normalised(result.weights.double() @ parts),
        suspicion=result.suspicion.double() @ shares,
        pulls=None if result.pulls is None else _pulls_of_clients(result.pulls, mixing),
        multipliers=multiplied.double() @ mixing,
    )
