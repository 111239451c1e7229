"""CelebA: celebrities' faces with 40 attributes, in torchvision's layout."""

from pathlib import Path

import numpy as np

from fl_testbed.data.dataset import DataError, Dataset, Examples
from fl_testbed.data.sources.fetching import remedy
from fl_testbed.data.sources.files import find_files, read_text
from fl_testbed.data.sources.images import read_images
from fl_testbed.data.sources.tables import Table

FILES = ("list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt")
TRAIN, TEST = "0", "2"  # 1 is for validation


def load_celeba(
    data_dir: Path | None, target: str = "Blond_Hair", size: int = 32, limit: int | None = None
) -> Dataset:
    """Load CelebA: 162,770 + 19,962 faces; natural clients are the celebrities.

    Args:
        data_dir: The folder of datasets.
        target: The attribute that is the label; groups can be made of all 40.
        size: Height and width that faces are scaled to.
        limit: Read only this many images of each set, the first ones: 200,000 take minutes.

    Raises:
        DataError: If its files are not there or are broken.

    References:
        Liu et al., Deep Learning Face Attributes in the Wild, ICCV 2015.
    """
    paths = find_files("CelebA", FILES, data_dir, ("celeba",), remedy("celeba"))
    attributes, names = _attributes(paths[0])
    split, identity = (_pairs(path, attributes) for path in paths[1:])
    if target not in names:
        raise DataError(
            f"{paths[0]}: has no attribute {target!r}; its attributes: {', '.join(names)}"
        )
    folder = paths[0].parent / "img_align_celeba"
    people = np.unique(identity, return_inverse=True)[1].astype(np.int64)

    def examples(part: str) -> Examples:
        rows = np.array([row for row, value in enumerate(split) if value == part][:limit])
        if not len(rows):
            raise DataError(f"{paths[1]}: has no image of the set {part}")
        table = attributes.take(rows)
        codes = {name: table.codes(name, ("-1", "1")) for name in names}
        images = read_images(table, "image", folder, size)
        return Examples(images, codes[target], codes, people[rows], rows)

    values = {name: (f"not {name}", name) for name in names}
    return Dataset("celeba", examples(TRAIN), examples(TEST), values[target], values)


def _attributes(path: Path) -> tuple[Table, list[str]]:
    """Read a file of the number of images, attribute names, and a row of -1 and 1 per image."""
    lines = read_text(path).splitlines()
    if len(lines) < 3 or not lines[0].strip().isdigit():
        raise DataError(f"{path}:1: needs the number of images")
    names = lines[1].split()
    rows = [line.split() for line in lines[2:] if line.strip()]
    if len(rows) != int(lines[0]):
        raise DataError(f"{path}: needs {int(lines[0]):,} rows, has {len(rows):,}: copy it again")
    for number, row in enumerate(rows, start=3):
        if len(row) != len(names) + 1:
            raise DataError(f"{path}:{number}: needs {len(names) + 1} columns, has {len(row)}")
    columns = dict(zip(["image", *names], map(list, zip(*rows, strict=True)), strict=True))
    table = Table(path, columns, list(range(3, len(rows) + 3)))
    table.check_unique("image")
    return table, names


def _pairs(path: Path, table: Table) -> list[str]:
    """Read the values of a file with one image and its value per line, in the images' order."""
    values: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        parts = line.split()
        if len(parts) not in (0, 2):
            raise DataError(f"{path}:{number}: needs an image and a value, got {line!r}")
        if parts:
            values[parts[0]] = parts[1]
    for row, image in enumerate(table.columns["image"]):
        if image not in values:
            raise table.fault(row, f"{image} is not in {path}")
    return [values[image] for image in table.columns["image"]]
