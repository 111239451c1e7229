"""Where datasets come from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import Generator

from fl_testbed.data.dataset import DataError, Dataset, Examples
from fl_testbed.data.idx import read_idx

DIGITS_TEST = 400


def load_digits(data_dir: Path | None, rng: Generator) -> Dataset:
    """Load scikit-learn's bundled handwritten digits: 1,797 grey images of 8 × 8, 10 classes.

    They come without a split, so the seed draws 400 of them for testing.
    """
    import sklearn.datasets  # two seconds that every other command can do without

    del data_dir
    pixels, classes = sklearn.datasets.load_digits(return_X_y=True)
    inputs = (np.asarray(pixels).reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    labels = np.asarray(classes, dtype=np.int64)
    order = rng.permutation(len(labels))
    test, train = order[:DIGITS_TEST], order[DIGITS_TEST:]
    return Dataset(
        "digits", Examples(inputs[train], labels[train]), Examples(inputs[test], labels[test]), 10
    )


FASHION_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def load_fashion_mnist(data_dir: Path | None, rng: Generator) -> Dataset:
    """Load Fashion-MNIST: 60,000 + 10,000 grey images of 28 × 28, 10 classes of clothing.

    Raises:
        DataError: If its four files are not there or are broken.
    """
    del rng
    paths = _find_files(
        "Fashion-MNIST",
        FASHION_MNIST_FILES,
        data_dir,
        folders=("fashion-mnist", "FashionMNIST/raw"),
        download="torchvision.datasets.FashionMNIST(DIR, download=True)",
    )
    images, labels, test_images, test_labels = paths
    return Dataset(
        "fashion_mnist",
        _idx_examples(images, labels),
        _idx_examples(test_images, test_labels),
        10,
    )


DATASETS: dict[str, Callable[[Path | None, Generator], Dataset]] = {
    "digits": load_digits,
    "fashion_mnist": load_fashion_mnist,
}


def _idx_examples(images: Path, labels: Path) -> Examples:
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise DataError(f"{labels}: {len(classes):,} labels for {len(pixels):,} images")
    return Examples(pixels[:, None], classes.astype(np.int64))


def _find_files(
    title: str,
    names: tuple[str, ...],
    data_dir: Path | None,
    folders: tuple[str, ...],
    download: str,
) -> list[Path]:
    """Return the path of each file, plain or gzipped, from the first folder that has them all."""
    command = f'python -c "import torchvision; {download}"'.replace("DIR", "'DIR'")
    if data_dir is None:
        raise DataError(
            f"{title} needs a data folder with {', '.join(names)} (plain or .gz) in "
            f"{' or '.join(folders)}: pass --data-dir DIR or set FL_TESTBED_DATA; "
            f"to download it: {command}"
        )
    for folder in folders:
        found = [
            next(
                (
                    path
                    for path in (data_dir / folder / name, data_dir / folder / f"{name}.gz")
                    if path.is_file()
                ),
                None,
            )
            for name in names
        ]
        if all(found):
            return [path for path in found if path is not None]
    looked = " and ".join(str(data_dir / folder) for folder in folders)
    raise DataError(
        f"{title} needs the files {', '.join(names)} (plain or .gz): looked in {looked}; "
        f"to download them: {command.replace('DIR', str(data_dir))}"
    )
