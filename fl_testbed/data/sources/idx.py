"""The IDX format of MNIST and its relatives, plain or gzipped."""

import math
import struct
from pathlib import Path

import numpy as np

from fl_testbed.data.dataset import DataError
from fl_testbed.data.sources.files import read_bytes

TYPES = {0x08: np.dtype(np.uint8), 0x0C: np.dtype(">i4")}


def read_idx(path: Path, n_dimensions: int) -> np.ndarray:
    """Read one IDX file of unsigned bytes or big-endian 32-bit integers.

    torchvision's reader accepts neither gzipped files nor integers, and fails on a broken file
    with an assertion.

    Raises:
        DataError: If the file cannot be read, is broken or is not IDX of this many dimensions.
    """
    content = read_bytes(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES:
        raise DataError(f"{path}: is not an IDX file of bytes or integers ({content[:4].hex()})")
    if content[3] != n_dimensions:
        raise DataError(f"{path}: needs {n_dimensions} dimensions, has {content[3]}")
    header = 4 + 4 * n_dimensions
    if len(content) < header:
        raise DataError(f"{path}: ends within its header: copy it again")
    shape = struct.unpack(f">{n_dimensions}I", content[4:header])
    dtype = TYPES[content[2]]
    needed = header + math.prod(shape) * dtype.itemsize
    if len(content) != needed:
        raise DataError(f"{path}: needs {needed:,} bytes for {shape}, has {len(content):,}")
    return np.frombuffer(content, dtype, offset=header).reshape(shape)
