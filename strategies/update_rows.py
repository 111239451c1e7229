"""How replies become rows of the matrix of updates, on the host or on a GPU."""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from flwr.app import ArrayRecord
from torch import Tensor

from strategies.aggregation.aggregate import norms_of
from strategies.flower_arrays import Layout


class UpdateRows(ABC):
    """The matrix of updates, and how it is filled.

    Args:
        layout: The model's layout.
        matrix: Shape (n, d), float32.
        start: What clients received, shape (d,), float32.
    """

    def __init__(self, layout: Layout, matrix: Tensor, start: np.ndarray) -> None:
        self._layout, self.matrix, self._start = layout, matrix, start
        self._d = layout.n_parameters

    @abstractmethod
    def write(self, row: int, arrays: ArrayRecord) -> None:
        """Write a reply's update into a row.

        Raises:
            UnusableReplyError: If the reply's arrays are not the model's.
        """

    @abstractmethod
    def norms(self) -> list[float]:
        """Return the L2 norm of the parameters in each row that was written; other rows' values
        mean nothing. A norm is not finite exactly if an entry of the whole row, buffers included,
        is not."""

    def _norms_of(self, rows: Tensor) -> Tensor:
        norms = norms_of(rows[:, : self._d])
        return norms + 0 * norms_of(rows[:, self._d :]) if self._d < rows.shape[1] else norms


class HostRows(UpdateRows):
    """Rows on the host: the norm of each is taken while the row is still in the cache."""

    def __init__(self, layout: Layout, matrix: Tensor, start: np.ndarray) -> None:
        super().__init__(layout, matrix, start)
        self._rows = matrix.numpy()
        self._norms = [math.nan] * len(matrix)

    @np.errstate(over="ignore", invalid="ignore")  # rows that overflow are refused by their norm
    def write(self, row: int, arrays: ArrayRecord) -> None:
        """Write a reply's update into a row."""
        for part, values in self._layout.parts(arrays):
            np.subtract(values, self._start[part], out=self._rows[row, part])
        self._norms[row] = float(self._norms_of(self.matrix[row : row + 1]))

    def norms(self) -> list[float]:
        """Return the norms."""
        return self._norms


class DeviceRows(UpdateRows):
    """Rows on a GPU. A reply already on it is read there; others pass through a row on the host.

    All norms are taken together, since the host would have to wait for each.
    """

    def __init__(self, layout: Layout, matrix: Tensor, start: np.ndarray) -> None:
        super().__init__(layout, matrix, start)
        self._there = torch.from_numpy(start).to(matrix.device)
        self._staged: Tensor | None = None

    def write(self, row: int, arrays: ArrayRecord) -> None:
        """Write a reply's update into a row."""
        flat = self._layout.flat_of(arrays)
        if not isinstance(flat, Tensor) or flat.device != self.matrix.device:
            if self._staged is None:
                self._staged = torch.empty(len(self._start), pin_memory=True)
            self._layout.flattened(arrays, out=self._staged.numpy())
            # This copy blocks: the next reply is staged in the same place.
            flat = self.matrix[row].copy_(self._staged)
        torch.sub(flat, self._there, out=self.matrix[row])

    def norms(self) -> list[float]:
        """Return the norms."""
        return self._norms_of(self.matrix).tolist()
