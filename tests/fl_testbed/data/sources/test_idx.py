import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from fl_testbed.data import DataError
from fl_testbed.data.sources.idx import read_idx

BYTES, INTEGERS, FLOATS = 0x08, 0x0C, 0x0D


def idx(kind: int, shape: tuple[int, ...], values: bytes) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + values


IMAGES = idx(BYTES, (2, 2, 3), bytes(range(244, 256)))
LABELS = idx(BYTES, (3,), bytes([7, 0, 9]))


@pytest.fixture
def file(tmp_path):
    def file(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return file


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_images_are_read_row_by_row_plain_or_gzipped(file, name):
    content = gzip.compress(IMAGES, mtime=0) if name.endswith(".gz") else IMAGES
    images = read_idx(file(name, content), 3)
    assert images.dtype == np.uint8
    assert images.tolist() == [
        [[244, 245, 246], [247, 248, 249]],
        [[250, 251, 252], [253, 254, 255]],
    ]


def test_integers_are_big_endian_and_signed(file):
    path = file("labels", idx(INTEGERS, (2, 2), struct.pack(">4i", 1, -2, 65_536, 3)))
    assert read_idx(path, 2).tolist() == [[1, -2], [65_536, 3]]


def test_a_file_may_hold_no_rows(file):
    assert read_idx(file("labels", idx(BYTES, (0,), b"")), 1).shape == (0,)


@pytest.mark.parametrize(
    ("name", "content", "dimensions", "fault"),
    [
        ("cut.gz", gzip.compress(IMAGES, mtime=0)[:-12], 3, "broken gzip file"),
        ("garbled.gz", gzip.compress(IMAGES, mtime=0)[:12] + b"\xff" * 30, 3, "broken gzip file"),
        ("plain.gz", IMAGES, 3, "broken gzip file"),
        ("empty", b"", 3, "not an IDX file"),
        ("text", b"label,pixel0,pixel1", 3, "not an IDX file"),
        ("floats", idx(FLOATS, (1,), bytes(4)), 1, "not an IDX file"),
        ("labels", LABELS, 3, "needs 3 dimensions, has 1"),
        ("images", IMAGES, 1, "needs 1 dimensions, has 3"),
        ("header", IMAGES[:10], 3, "ends within its header"),
        ("short", IMAGES[:-1], 3, "needs 28 bytes for (2, 2, 3), has 27"),
        ("long", IMAGES + b"\0", 3, "needs 28 bytes for (2, 2, 3), has 29"),
        ("wide", idx(INTEGERS, (3,), bytes(3)), 1, "needs 20 bytes for (3,), has 11"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(file, name, content, dimensions, fault):
    path = file(name, content)
    with pytest.raises(DataError) as error:
        read_idx(path, dimensions)
    assert str(error.value).startswith(f"{path}: ")
    assert fault in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_opened_is_one_line_that_names_it(tmp_path):
    with pytest.raises(DataError) as error:
        read_idx(tmp_path, 1)
    assert str(error.value) == f"{tmp_path}: cannot be read: Is a directory"
