"""MNIST, Fashion-MNIST, and MNIST by writer: IDX files."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.random import Generator

from fl_testbed.data.dataset import DataError, Dataset, Examples, numbered
from fl_testbed.data.sources.digits import DIGITS
from fl_testbed.data.sources.fetching import remedy
from fl_testbed.data.sources.files import find_files
from fl_testbed.data.sources.idx import read_idx
from fl_testbed.data.sources.splitting import split_clients

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CLOTHING = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
POPULATIONS = ("employees", "students")
STUDENTS = 4  # NIST's series; the others are Census employees
DIGIT, SERIES, WRITER = 0, 1, 2  # columns of QMNIST's label table


def load_mnist(data_dir: Path | None) -> Dataset:
    """Load MNIST: 60,000 + 10,000 grey images of 28 × 28 of handwritten digits.

    Raises:
        DataError: If its four files are not there or are broken.
    """
    return _load("mnist", "MNIST", ("mnist", "MNIST/raw"), DIGITS, data_dir)


def load_fashion_mnist(data_dir: Path | None) -> Dataset:
    """Load Fashion-MNIST: 60,000 + 10,000 grey images of 28 × 28, 10 classes of clothing.

    Raises:
        DataError: If its four files are not there or are broken.
    """
    folders = ("fashion-mnist", "FashionMNIST/raw")
    return _load("fashion_mnist", "Fashion-MNIST", folders, CLOTHING, data_dir)


def load_mnist_writers(
    data_dir: Path | None,
    rng: Generator,
    part: Literal["t10k", "train"] = "t10k",
    population: Literal["both", "employees", "students"] = "both",
    test_fraction: float = 0.2,
) -> Dataset:
    """Load MNIST digits with their writers, from QMNIST's label table beside MNIST's images.

    Natural clients are the writers; the attribute ``population`` tells Census employees from
    high-school students. The seed draws the writers to test on, a share of each population.

    Args:
        data_dir: The folder of datasets.
        rng: Draws the test writers, and shuffles the digits, which the file sorts by writer.
        part: MNIST's test file (10,000 digits, 297 writers) or its training file.
        population: Whose digits.
        test_fraction: Share of each population's writers for testing, at least one of each.

    Raises:
        DataError: If its files are not there, are broken, or do not belong together.

    References:
        Yadav and Bottou, Cold Case: The Lost MNIST Digits, NeurIPS 2019.
    """
    table_part = "test" if part == "t10k" else part
    names = (
        f"{part}-images-idx3-ubyte",
        f"{part}-labels-idx1-ubyte",
        f"qmnist-{table_part}-labels-idx2-int",
    )
    folders = ("mnist-writers", "MNIST/raw")
    paths = find_files("MNIST by writer", names, data_dir, folders, remedy("mnist_writers"))
    examples = idx_examples(paths[0], paths[1], len(DIGITS))
    table = read_idx(paths[2], 2)
    n = len(examples)
    if len(table) < n or table.shape[1] <= WRITER:
        raise DataError(
            f"{paths[2]}: needs {n:,} rows of at least {WRITER + 1} columns, one for each image, "
            f"has {len(table):,} of {table.shape[1]}"
        )
    wrong = np.flatnonzero(table[:n, DIGIT] != examples.labels)
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{paths[2]}: row {row + 1}: says {table[row, DIGIT]}, but the image's label is "
            f"{examples.labels[row]}: the files do not belong together"
        )
    populations = (table[:n, SERIES] == STUDENTS).astype(np.int64)
    writers = np.unique(table[:n, WRITER], return_inverse=True)[1].astype(np.int64)
    every = Examples(examples.inputs, examples.labels, {"population": populations}, writers)
    if population != "both":
        every = every.take(np.flatnonzero(populations == POPULATIONS.index(population)))
    train, test = split_clients(every, every.attributes["population"], test_fraction, rng)
    return Dataset("mnist_writers", train, test, DIGITS, {"population": POPULATIONS})


def idx_examples(images: Path, labels: Path, n_classes: int) -> Examples:
    """Read a file of images and the file of their labels.

    Raises:
        DataError: If either is broken, or they do not belong together.
    """
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise DataError(f"{labels}: has {len(classes):,} labels for {len(pixels):,} images")
    outside = np.flatnonzero((classes < 0) | (classes >= n_classes))
    if len(outside):
        raise DataError(
            f"{labels}: row {outside[0] + 1}: needs a class from 0 to {n_classes - 1}, "
            f"got {classes[outside[0]]}"
        )
    return Examples(pixels[:, None], classes.astype(np.int64))


def _load(
    kind: str, title: str, folders: tuple[str, ...], classes: tuple[str, ...], data_dir: Path | None
) -> Dataset:
    paths = find_files(title, IDX_FILES, data_dir, folders, remedy(kind))
    images, labels, test_images, test_labels = paths
    train = idx_examples(images, labels, len(classes))
    test = idx_examples(test_images, test_labels, len(classes))
    if train.inputs.shape[1:] != test.inputs.shape[1:]:
        raise DataError(
            f"{test_images}: has images of {test.inputs.shape[2:]} pixels, {images} of "
            f"{train.inputs.shape[2:]}"
        )
    return Dataset(kind, *numbered(train, test), classes)
