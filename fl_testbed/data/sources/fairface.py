"""FairFace: faces with perceived race, gender and age."""

from pathlib import Path
from typing import Literal

from fl_testbed.data.dataset import Dataset, Examples, numbered
from fl_testbed.data.sources.fetching import remedy
from fl_testbed.data.sources.files import find_files
from fl_testbed.data.sources.images import read_images
from fl_testbed.data.sources.tables import Table, read_table

VALUES = {
    "gender": ("Female", "Male"),
    "age": (
        "0-2",
        "3-9",
        "10-19",
        "20-29",
        "30-39",
        "40-49",
        "50-59",
        "60-69",
        "more than 70",
    ),
    "race": (
        "Black",
        "East Asian",
        "Indian",
        "Latino_Hispanic",
        "Middle Eastern",
        "Southeast Asian",
        "White",
    ),
}


def load_fairface(
    data_dir: Path | None,
    target: Literal["gender", "age", "race"] = "gender",
    size: int = 32,
    limit: int | None = None,
) -> Dataset:
    """Load FairFace: 86,744 + 10,954 faces in the original, attributes gender, age and race.

    The labels are how strangers perceived the faces: use them to measure gaps between groups.

    Args:
        data_dir: The folder of datasets.
        target: The attribute whose values are the classes.
        size: Height and width that faces are scaled to.
        limit: Read only this many images of each file, the first ones.

    Raises:
        DataError: If its files are not there or are broken.

    References:
        Karkkainen and Joo, FairFace: Face Attribute Dataset for Balanced Race, Gender, and Age,
        WACV 2021.
    """
    names = ("fairface_label_train.csv", "fairface_label_val.csv")
    folders = ("fairface", "fairface32")
    paths = find_files("FairFace", names, data_dir, folders, remedy("fairface"))
    tables = [read_table(path, ("file", *VALUES)) for path in paths]
    for table in tables:
        table.check_unique("file")
    tables = [table.take(range(min(len(table), limit or len(table)))) for table in tables]
    store = _store(paths[0].parent, tables[0])
    train, test = (_examples(table, store, target, size) for table in tables)
    return Dataset("fairface", *numbered(train, test), VALUES[target], VALUES)


def _store(folder: Path, table: Table) -> Path:
    """Return the folder if the images lie in it, otherwise the only zip file there."""
    if (folder / table.columns["file"][0]).is_file():
        return folder
    archives = sorted(folder.glob("*.zip"))
    if len(archives) != 1:
        there = ", ".join(path.name for path in archives) or "none"
        raise table.fault(
            0,
            f"{table.columns['file'][0]} is not in {folder}, nor is there one zip file of images "
            f"(found {there})",
        )
    return archives[0]


def _examples(table: Table, store: Path, target: str, size: int) -> Examples:
    codes = {name: table.codes(name, values) for name, values in VALUES.items()}
    return Examples(read_images(table, "file", store, size), codes[target], codes)
