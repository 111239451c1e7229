"""Image files in a folder or a zip archive, listed by a table."""

import io
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from fl_testbed.data.dataset import DataError
from fl_testbed.data.sources.tables import Table

MODES = {1: "L", 3: "RGB"}
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn an image of each EXIF orientation; ImageOps.exif_transpose fails on damaged tags."""
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


def read_images(
    table: Table,
    column: str,
    store: Path,
    size: int | None,
    channels: int = 3,
    *,
    upright: bool = False,
) -> np.ndarray:
    """Read the images that a table's column names: all of them, or an error.

    Args:
        table: Has a row for each image.
        column: The column of file names, relative to the store.
        store: A folder or a zip archive.
        size: Height and width in pixels to scale to; None if all have the same size already.
        channels: 3 for colour, 1 for grey.
        upright: Whether images are turned as their EXIF orientation says. Published datasets are
            taken as they are stored.

    Returns:
        Bytes of shape (rows, channels, height, width).

    Raises:
        DataError: With the table's line, if an image is missing, broken or of another size.
    """
    names = table.columns[column]
    with nullcontext() if store.is_dir() else _opened(store) as archive:
        images = store if archive is None else zipfile.Path(archive)
        for row, name in enumerate(names):
            if not (images / name).is_file():
                raise table.fault(row, f"{name} is not in {store}")
        pixels: np.ndarray | None = None
        for row, name in enumerate(names):
            try:
                image = _decoded((images / name).read_bytes(), size, channels, upright)
            except DataError as fault:
                raise table.fault(row, f"{name} {fault}") from None
            except UNREADABLE:
                text = f"{name} is not an image that can be read: copy it again"
                raise table.fault(row, text) from None
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


def _opened(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except zipfile.BadZipFile as fault:
        raise DataError(f"{archive}: broken zip file ({fault}): copy it again") from fault


def _decoded(content: bytes, size: int | None, channels: int, upright: bool) -> np.ndarray:
    """Return one image as (channels, height, width)."""
    with Image.open(io.BytesIO(content)) as image:
        if image.mode.startswith(("I", "F")):  # values above 255 would become white
            raise DataError(f"has more than 8 bits a pixel (mode {image.mode}): save it with 8")
        turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1)) if upright else None
        image = image.convert(MODES[channels])
        if turn is not None:
            image = image.transpose(turn)
        if size is not None and image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.LANCZOS)
        return np.asarray(image).reshape(image.height, image.width, channels).transpose(2, 0, 1)
