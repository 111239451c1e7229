"""A weighted mean of updates that come one by one, without keeping them, and when it is used."""

import numpy as np
import torch
from torch import Tensor

from strategies.aggregation.aggregate import Aggregate
from strategies.aggregation.traits import RowByRow
from strategies.pipeline import Pipeline
from strategies.shapes import CPU

KEEP_MIB = 256.0  # a larger matrix of updates is not kept where a running sum will do
BLOCK = 2**16  # entries whose float64 copy stays in a core's cache


def takes_running_sum(
    pipeline: Pipeline, n_clients: int, n_parameters: int, device: torch.device, keep_mib: float
) -> bool:
    """Whether updates are added up as they come, and no matrix of them is kept."""
    # On a GPU rows would have to leave it to be added up here.
    large = 4 * n_clients * n_parameters > keep_mib * 2**20 and device.type == "cpu"
    return large and n_clients > 1 and pipeline.row_by_row is not None


def server_bytes(
    pipeline: Pipeline,
    n_clients: int,
    n_parameters: int,
    device: torch.device = CPU,
    keep_mib: float = KEEP_MIB,
) -> int:
    """Return the bytes that the server keeps in a round: the matrix of updates, its copies and the
    matrices that compare pairs of clients, or a running sum."""
    if takes_running_sum(pipeline, n_clients, n_parameters, device, keep_mib):
        return (8 + 8 + 4) * n_parameters
    pairs = 5 * 8 * n_clients**2 if pipeline.compares_pairs else 0
    return 4 * n_clients * n_parameters * (1 + pipeline.n_copies) + pairs


class RunningSum:
    """Adds rows in row order, whatever order they come in, so that the sum is repeatable.

    Rows that come early are held back until those before them are there or known to be missing.

    Args:
        n_parameters: Length d of a row.
        rule: What each row is scaled by, and how much it is suspected.
    """

    def __init__(self, n_parameters: int, rule: RowByRow) -> None:
        self._rule = rule
        self._total = torch.zeros(n_parameters, dtype=torch.float64)
        self._early: dict[int, tuple[Tensor, float, float] | None] = {}
        self._next = 0
        self._raw: list[float] = []
        self._scales: list[float] = []
        self._suspicion: list[float] = []
        self._any_weight = False

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
        raw = np.array(self._raw) if self._any_weight else np.ones(len(self._raw))
        total = self._total.mul_(1 / raw.sum())
        effective = raw / raw.sum() * np.array(self._scales)
        return Aggregate(
            total.float(),
            torch.from_numpy(effective / effective.sum()),
            torch.tensor(self._suspicion, dtype=torch.float64),
        )

    def _drain(self) -> None:
        while self._next in self._early:
            self._add(self._early.pop(self._next))
            self._next += 1

    def _add(self, item: tuple[Tensor, float, float] | None) -> None:
        if item is None:
            return
        update, raw_weight, norm = item
        scale = self._rule.scale(norm)
        if raw_weight > 0 and not self._any_weight:
            self._total.zero_()  # so far all counted equally, since nobody had any weight
            self._any_weight = True
        factor = raw_weight * scale if self._any_weight else scale
        for total, block in zip(self._total.split(BLOCK), update.split(BLOCK), strict=True):
            total.add_(block, alpha=factor)
        self._raw.append(raw_weight)
        self._scales.append(scale)
        self._suspicion.append(self._rule.suspicion(norm))
