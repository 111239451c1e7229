"""Image files in a folder or a zip archive, named by a table."""

import io
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from fl_testbed.data.dataset import DataError
from fl_testbed.data.sources.tables import Table

MODES = {1: "L", 3: "RGB"}
# What Pillow and zipfile raise: SyntaxError for a PNG with a broken chunk, RuntimeError for an
# archive with a password.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)


class _Store(Protocol):
    def has(self, name: str) -> bool: ...
    def read(self, name: str) -> bytes: ...
    def close(self) -> None: ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def has(self, name: str) -> bool:
        return (self._path / name).is_file()

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def close(self) -> None:
        pass


class _Archive:
    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as fault:
            raise DataError(f"{path}: broken zip file ({fault}): copy it again") from fault
        self._names = set(self._zip.namelist())

    def has(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str) -> bytes:
        return self._zip.read(name)

    def close(self) -> None:
        self._zip.close()


def read_images(
    table: Table, column: str, store: Path, size: int | None, channels: int = 3
) -> np.ndarray:
    """Read the images that a column names, all of them or none.

    Args:
        table: Says which images there are.
        column: Their names, relative to the store.
        store: A folder or a zip archive.
        size: Height and width in pixels that they are scaled to; None: as they are, all alike.
        channels: 3 for colour, 1 for grey.

    Returns:
        Bytes of shape (rows, channels, height, width).

    Raises:
        DataError: With the table's line, if an image is missing, broken or of another size.
    """
    names = table.columns[column]
    with closing(_Folder(store) if store.is_dir() else _Archive(store)) as images:
        for row, name in enumerate(names):
            if not images.has(name):
                raise table.fault(row, f"{name} is not in {store}")
        pixels: np.ndarray | None = None
        for row, name in enumerate(names):
            image = _decoded(table, row, name, images, size, channels)
            if pixels is None:
                pixels = np.empty((len(names), *image.shape), dtype=np.uint8)
            elif image.shape != pixels.shape[1:]:
                _, height, width = image.shape
                raise table.fault(
                    row,
                    f"{name} has {height} × {width} pixels, the first image {pixels.shape[2]} × "
                    f"{pixels.shape[3]}: set dataset.size to scale all alike",
                )
            pixels[row] = image
    if pixels is None:
        raise DataError(f"{table.path}: has no rows")
    return pixels


def _decoded(
    table: Table, row: int, name: str, images: _Store, size: int | None, channels: int
) -> np.ndarray:
    """Return one image as (channels, height, width)."""
    try:
        with Image.open(io.BytesIO(images.read(name))) as image:
            image = image.convert(MODES[channels])
            if size is not None and image.size != (size, size):
                image = image.resize((size, size), Image.Resampling.LANCZOS)
            return np.asarray(image).reshape(image.height, image.width, channels).transpose(2, 0, 1)
    except UNREADABLE:
        raise table.fault(row, f"{name} is not an image that can be read: copy it again") from None
