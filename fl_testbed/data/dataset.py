"""A dataset in memory: numpy arrays, so that Ray shares them between workers without a copy."""

from dataclasses import dataclass

import numpy as np


class DataError(ValueError):
    """Data that is not there, cannot be read, or does not suffice; the text says what to do."""


@dataclass(frozen=True)
class Examples:
    """Inputs and labels, row by row."""

    inputs: np.ndarray
    """Images as (n, channels, height, width), uint8 or float32 in [0, 1]; or (n, features)."""
    labels: np.ndarray
    """Classes as int64, shape (n,)."""

    def __len__(self) -> int:
        return len(self.labels)

    def unit_inputs(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return a float32 copy of some rows, bytes scaled to [0, 1]."""
        chosen = self.inputs[rows]
        if chosen.dtype == np.uint8:
            return chosen.astype(np.float32) / np.float32(255)
        return np.array(chosen, dtype=np.float32)


@dataclass(frozen=True)
class Dataset:
    """Examples to train on and examples to test on, from different people or files."""

    name: str
    train: Examples
    test: Examples
    n_classes: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.train.inputs.shape[1:])
