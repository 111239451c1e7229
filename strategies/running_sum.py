"""A weighted mean of updates that come one by one, without keeping them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from strategies.aggregation.aggregate import Aggregate

ScaleOfRow = Callable[[float], float]
"""For a rule that averages scaled rows: the scale of a row, by its L2 norm."""

BLOCK = 2**16  # entries whose float64 copy stays in a core's cache


def unscaled(norm: float) -> float:
    """Scale no row: the mean, which suspects nobody."""
    del norm
    return 1.0


class RunningSum:
    """Adds rows in row order, whatever order they come in, so that the sum is repeatable.

    Rows that come early are held back until those before them are there or known to be missing.

    Args:
        n_parameters: Length d of a row.
        scale_of_row: The rule's scale of a row.
    """

    def __init__(self, n_parameters: int, scale_of_row: ScaleOfRow) -> None:
        self._scale_of_row = scale_of_row
        self._total = torch.zeros(n_parameters, dtype=torch.float64)
        self._early: dict[int, tuple[Tensor, float, float] | None] = {}
        self._next = 0
        self._raw: list[float] = []
        self._scales: list[float] = []
        self._norms: list[float] = []

    def put(self, row: int, update: Tensor, raw_weight: float, norm: float) -> None:
        """Take a row: its update (copied if it is early), unscaled weight and norm."""
        item = (update if row == self._next else update.clone(), raw_weight, norm)
        self._early[row] = item
        self._drain()

    def skip(self, row: int) -> None:
        """Note that a row will not come."""
        self._early[row] = None
        self._drain()

    def result(self) -> Aggregate:
        """Return the mean of all rows that came, by raw weight; call once, at the end."""
        for row in sorted(self._early):
            self._add(self._early.pop(row))
        raw, scales = np.array(self._raw), np.array(self._scales)
        prior = raw / raw.sum() if raw.sum() > 0 else np.full(len(raw), 1 / len(raw))
        total = self._total.mul_(1 / raw.sum() if raw.sum() > 0 else 0.0)
        effective = prior * scales
        weights = effective / effective.sum() if effective.sum() > 0 else effective
        suspicion = torch.tensor(self._norms, dtype=torch.float64)
        if self._scale_of_row is unscaled:
            suspicion.zero_()
        return Aggregate(total.float(), torch.from_numpy(weights), suspicion)

    def _drain(self) -> None:
        while self._next in self._early:
            self._add(self._early.pop(self._next))
            self._next += 1

    def _add(self, item: tuple[Tensor, float, float] | None) -> None:
        if item is None:
            return
        update, raw_weight, norm = item
        scale = self._scale_of_row(norm)
        for total, block in zip(self._total.split(BLOCK), update.split(BLOCK), strict=True):
            total.add_(block, alpha=raw_weight * scale)
        self._raw.append(raw_weight)
        self._scales.append(scale)
        self._norms.append(norm)
