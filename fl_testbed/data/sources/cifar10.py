"""CIFAR-10 in its binary version."""

from pathlib import Path

import numpy as np

from fl_testbed.data.dataset import DataError, Dataset, Examples, numbered
from fl_testbed.data.sources.fetching import remedy
from fl_testbed.data.sources.files import find_files, read_bytes

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILE = "test_batch.bin"
ROW_BYTES = 1 + 3 * 32 * 32  # the label, then the red, green and blue planes


def load_cifar10(data_dir: Path | None) -> Dataset:
    """Load CIFAR-10: 50,000 + 10,000 colour images of 32 × 32, 10 classes.

    The binary version, not the pickled one: unpickling a file runs whatever is in it.

    Raises:
        DataError: If its six files are not there or are broken.
    """
    names = (*TRAIN_FILES, TEST_FILE)
    folders = ("cifar-10-batches-bin", "cifar10")
    *train_paths, test_path = find_files(
        "CIFAR-10 (binary version)", names, data_dir, folders, remedy("cifar10")
    )
    train = _examples(np.concatenate([_rows(path) for path in train_paths]))
    return Dataset("cifar10", *numbered(train, _examples(_rows(test_path))), CLASSES)


def _rows(path: Path) -> np.ndarray:
    content = read_bytes(path)
    if not content or len(content) % ROW_BYTES:
        raise DataError(
            f"{path}: needs rows of {ROW_BYTES} bytes, has {len(content):,} bytes: copy it again"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, ROW_BYTES)
    outside = np.flatnonzero(rows[:, 0] >= len(CLASSES))
    if len(outside):
        raise DataError(
            f"{path}: row {outside[0] + 1}: needs a class from 0 to 9, got {rows[outside[0], 0]}"
        )
    return rows


def _examples(rows: np.ndarray) -> Examples:
    images = np.ascontiguousarray(rows[:, 1:]).reshape(-1, 3, 32, 32)
    return Examples(images, rows[:, 0].astype(np.int64))
