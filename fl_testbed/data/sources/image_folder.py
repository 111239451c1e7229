"""A user's own images: a folder, and a CSV of label, group and client."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator

from fl_testbed.data.dataset import DataError, Dataset, Examples
from fl_testbed.data.sources.files import find_files
from fl_testbed.data.sources.images import read_images
from fl_testbed.data.sources.splitting import split_clients, split_rows
from fl_testbed.data.sources.tables import read_table

SPLITS = ("train", "test")


def load_image_folder(
    data_dir: Path | None,
    rng: Generator,
    folder: str,
    table: str = "labels.csv",
    image: str = "image",
    label: str = "label",
    attributes: Sequence[str] = (),
    client: str | None = None,
    split: str | None = None,
    test_fraction: float = 0.2,
    size: int | None = None,
    channels: int = 3,
) -> Dataset:
    """Load images that a table names, relative to the folder that holds both.

    Args:
        data_dir: The folder of datasets.
        rng: Draws the test set where the table does not say: clients, if it names them.
        folder: Where the table and the images are, in the data folder.
        table: The CSV file, with a header.
        image: Its column of file names.
        label: Its column of classes.
        attributes: Its columns that can make groups.
        client: Its column of natural clients.
        split: Its column that says ``train`` or ``test``.
        test_fraction: Share of examples (or clients) for testing, without such a column.
        size: Height and width that images are scaled to; None if all are alike.
        channels: 3 for colour, 1 for grey.

    Raises:
        DataError: If files are missing or broken.
    """
    remedy = "it is yours to make: see docs/datasets.md"
    (path,) = find_files(f"image_folder {folder}", (table,), data_dir, (folder,), remedy)
    others = [column for column in (client, split) if column is not None]
    rows = read_table(path, [image, label, *attributes, *others])
    rows.check_unique(image)
    names = [label, *attributes]
    values = {name: tuple(sorted(set(rows.columns[name]))) for name in names}
    codes = {name: rows.codes(name, values[name]) for name in names}
    clients = None
    if client is not None:
        clients = rows.codes(client, sorted(set(rows.columns[client])))
    is_test = None if split is None else rows.codes(split, SPLITS) == SPLITS.index("test")
    every = Examples(
        read_images(rows, image, path.parent, size, channels),
        codes[label],
        {name: codes[name] for name in attributes},
        clients,
    )
    if is_test is not None:
        if is_test.all() or not is_test.any():
            raise DataError(f"{path}: {split} must say train for some rows and test for others")
        train, test = (every.take(np.flatnonzero(is_test == part)) for part in (False, True))
    elif clients is not None:
        train, test = split_clients(every, np.zeros(len(every), dtype=int), test_fraction, rng)
    else:
        train, test = split_rows(every, test_fraction, rng)
    return Dataset(folder, train, test, values[label], {name: values[name] for name in attributes})
