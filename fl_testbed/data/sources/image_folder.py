"""A user's own images: a folder, and a CSV of label, group and client."""

from pathlib import Path

from numpy.random import Generator

from fl_testbed.data.dataset import Dataset
from fl_testbed.data.sources.files import find_files
from fl_testbed.data.sources.images import read_images
from fl_testbed.data.sources.own_table import Meanings
from fl_testbed.data.sources.tables import read_table


def load_image_folder(
    data_dir: Path | None,
    rng: Generator,
    folder: str,
    meanings: Meanings,
    table: str = "labels.csv",
    image: str = "image",
    size: int | None = None,
    channels: int = 3,
) -> Dataset:
    """Load images that a table lists, by their paths relative to the folder that holds both.

    Photos are turned upright, as the camera noted.

    Args:
        data_dir: The folder of datasets.
        rng: Draws the test set if no column gives the split.
        folder: The folder of the table and the images, inside the data folder.
        meanings: Which columns are label, attributes, client and split.
        table: The CSV file, with a header.
        image: The table's column of file names.
        size: Height and width that images are scaled to; None if all have the same size.
        channels: 3 for colour, 1 for grey.

    Raises:
        DataError: If files are missing or broken.
    """
    remedy = "docs/datasets.md says how to make it"
    (path,) = find_files(f"image_folder {folder}", (table,), data_dir, (folder,), remedy)
    rows = read_table(path, [image, *meanings.columns])
    rows.check_unique(image)
    images = read_images(rows, image, path.parent, size, channels, upright=True)
    values = meanings.values(rows)
    train, test = meanings.examples(rows, images, values, rng)
    return Dataset(folder, train, test, values.pop(meanings.label), values)
