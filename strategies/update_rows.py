"""How replies become rows of the matrix of updates, on the host or on a GPU."""

from collections.abc import Callable

import numpy as np
import torch
from flwr.app import ArrayRecord
from torch import Tensor

from strategies.aggregation.aggregate import norms_of
from strategies.flower_arrays import FlatRecord, Layout

WriteRow = Callable[[int, ArrayRecord], float]
"""Writes a reply's update into a row of the matrix; returns its L2 norm, which is not finite
exactly if an entry is not. Raises UnusableReplyError if the reply's arrays are not the model's."""


def row_writer(layout: Layout, matrix: Tensor, start: np.ndarray) -> WriteRow:
    """Return what writes rows where the matrix is.

    Args:
        layout: Of the model.
        matrix: Shape (n, d), float32.
        start: The parameters that clients received, shape (d,), float32.
    """
    if matrix.device.type == "cpu":
        return host_writer(layout, matrix, start)
    staged = torch.empty(len(start), pin_memory=True)
    return device_writer(layout, matrix, start, staged)


def host_writer(layout: Layout, matrix: Tensor, start: np.ndarray) -> WriteRow:
    """Return what writes rows of a matrix on the host."""
    rows = matrix.numpy()

    def write(row: int, arrays: ArrayRecord) -> float:
        for part, values in layout.parts(arrays):
            np.subtract(values, start[part], out=rows[row, part], casting="same_kind")
        return float(norms_of(matrix[row : row + 1]))

    return write


def device_writer(layout: Layout, matrix: Tensor, start: np.ndarray, staged: Tensor) -> WriteRow:
    """Return what writes rows of a matrix on a GPU.

    A reply that is there already is copied there. Others go through ``staged``, a row on the host,
    best pinned.
    """
    there = torch.from_numpy(start).to(matrix.device)

    def write(row: int, arrays: ArrayRecord) -> float:
        flat = arrays.flat_in(layout) if isinstance(arrays, FlatRecord) else None
        if not isinstance(flat, Tensor) or flat.device != matrix.device:
            layout.write_flat(arrays, staged.numpy())
            flat = staged
        matrix[row].copy_(flat)  # from the host it waits: the next reply is staged in its place
        update = matrix[row].sub_(there)
        return float(torch.linalg.vector_norm(update, dtype=torch.float64))

    return write
