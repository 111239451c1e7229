"""Waterbirds: birds pasted on land and on water, in the layout of WILDS."""

from pathlib import Path

import numpy as np

from fl_testbed.data.dataset import DataError, Dataset, Examples
from fl_testbed.data.sources.fetching import remedy
from fl_testbed.data.sources.files import find_files
from fl_testbed.data.sources.images import read_images
from fl_testbed.data.sources.tables import read_table

BIRDS, PLACES = ("landbird", "waterbird"), ("land", "water")
SPLITS = ("0", "1", "2")
TRAIN, TEST = 0, 2  # 1 is for validation


def load_waterbirds(data_dir: Path | None, size: int = 32) -> Dataset:
    """Load Waterbirds: 4,795 + 5,794 images; the attribute ``place`` is the background.

    Raises:
        DataError: If its files are not there or are broken.

    References:
        Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, ICLR 2020.
    """
    folders = ("waterbirds_v1.0", "waterbirds")
    (path,) = find_files("Waterbirds", ("metadata.csv",), data_dir, folders, remedy("waterbirds"))
    table = read_table(path, ("img_id", "img_filename", "y", "split", "place"))
    table.check_unique("img_id")
    table.check_unique("img_filename")
    splits = table.codes("split", SPLITS)

    def examples(split: int) -> Examples:
        rows = np.flatnonzero(splits == split)
        if not len(rows):
            raise DataError(f"{path}: has no image of split {split}")
        own = table.take(rows)
        labels, places = own.codes("y", ("0", "1")), own.codes("place", ("0", "1"))
        images = read_images(own, "img_filename", path.parent, size)
        return Examples(images, labels, {"place": places}, ids=rows)

    return Dataset("waterbirds", examples(TRAIN), examples(TEST), BIRDS, {"place": PLACES})
