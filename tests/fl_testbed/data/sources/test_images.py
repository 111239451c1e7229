import io
import zipfile

import numpy as np
import pytest
from PIL import ExifTags, Image

from fl_testbed.data import DataError
from fl_testbed.data.sources.images import read_images
from fl_testbed.data.sources.tables import read_table


def png(values: np.ndarray, dtype: type = np.uint8, orientation: int = 1) -> bytes:
    content = io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(values.astype(dtype)).save(content, "PNG", exif=exif)
    return content.getvalue()


GREY, COLOUR = np.arange(16).reshape(4, 4), np.arange(48).reshape(4, 4, 3)


def with_a_short_chunk(image: bytes) -> bytes:
    """Return a PNG whose pixels end too early: what follows is no chunk."""
    begin = image.index(b"IDAT")
    return image[: begin - 4] + (5).to_bytes(4, "big") + image[begin:]


FILES = {"a/1.png": png(GREY), "a/2.png": png(COLOUR)}


@pytest.fixture(params=["folder", "zip"])
def store(request, tmp_path):
    """Write images into a folder or a zip file."""

    def store(files: dict[str, bytes]):
        if request.param == "folder":
            for name, content in files.items():
                (tmp_path / name).parent.mkdir(exist_ok=True)
                (tmp_path / name).write_bytes(content)
            return tmp_path
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return tmp_path / "images.zip"

    return store


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("file\na/1.png\na/2.png\n")
    return read_table(path, ["file"])


def test_images_are_read_in_the_order_of_the_table(store, table):
    images = read_images(table, "file", store(FILES), None)
    assert images.shape == (2, 3, 4, 4)
    assert images.dtype == np.uint8
    assert np.array_equal(images[0], np.stack([GREY] * 3))
    assert np.array_equal(images[1], COLOUR.transpose(2, 0, 1))


def test_they_are_scaled_and_made_grey_as_asked_for(store, table):
    images = read_images(table, "file", store(FILES), 2, channels=1)
    assert images.shape == (2, 1, 2, 2)
    assert images[0].mean() == pytest.approx(GREY.mean(), abs=1)


TURNS = [np.asarray, np.fliplr, lambda x: np.rot90(x, 2), np.flipud]
TURNS += [np.transpose, lambda x: np.rot90(x, -1), lambda x: np.rot90(x, 2).T, np.rot90]
TURNS += [np.asarray]  # there is no ninth


@pytest.mark.parametrize(("orientation", "turned"), list(enumerate(TURNS, start=1)))
def test_a_camera_s_orientation_is_followed_where_asked_for(store, table, orientation, turned):
    stored = np.arange(20).reshape(4, 5)
    images = store({name: png(stored, orientation=orientation) for name in FILES})
    upright = read_images(table, "file", images, None, channels=1, upright=True)
    assert np.array_equal(upright[0, 0], turned(stored))
    assert np.array_equal(read_images(table, "file", images, None, channels=1)[0, 0], stored)


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"a/1.png": FILES["a/1.png"]}, ":3: a/2.png is not in "),
        (FILES | {"a/2.png": b"GIF"}, ":3: a/2.png is not an image that can be read"),
        (FILES | {"a/2.png": FILES["a/2.png"][:50]}, ":3: a/2.png is not an image"),
        (
            FILES | {"a/2.png": with_a_short_chunk(FILES["a/2.png"])},
            ":3: a/2.png is not an image",
        ),
        (
            FILES | {"a/2.png": png(GREY, np.uint16)},  # all but 0 to 255 would be white
            ":3: a/2.png has more than 8 bits a pixel (mode I;16): save it with 8",
        ),
        (
            FILES | {"a/2.png": png(np.zeros((4, 5)))},
            ":3: a/2.png has 4 × 5 pixels, the first image 4 × 4: set dataset.size",
        ),
    ],
)
def test_a_missing_or_broken_image_is_named_with_the_table_s_line(store, table, files, fault):
    with pytest.raises(DataError) as error:
        read_images(table, "file", store(files), None)
    assert str(error.value).startswith(f"{table.path}{fault}")
    assert "\n" not in str(error.value)


def test_a_broken_archive_is_named(table, tmp_path):
    (tmp_path / "images.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"images.zip: broken zip file"):
        read_images(table, "file", tmp_path / "images.zip", None)
