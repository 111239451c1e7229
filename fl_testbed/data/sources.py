"""Where datasets come from."""

from pathlib import Path

import numpy as np
from numpy.random import Generator

from fl_testbed.data.dataset import DataError, Dataset, Examples
from fl_testbed.data.idx import read_idx

DIGITS = tuple("0123456789")
DIGITS_TEST = 400


def load_digits(rng: Generator) -> Dataset:
    """Load scikit-learn's bundled handwritten digits: 1,797 grey images of 8 × 8, 10 classes.

    They come without a split, so the seed draws 400 of them for testing.
    """
    import sklearn.datasets  # two seconds that every other command can do without

    pixels, classes = sklearn.datasets.load_digits(return_X_y=True)
    inputs = (np.asarray(pixels).reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    labels = np.asarray(classes, dtype=np.int64)
    order = rng.permutation(len(labels))
    test, train = order[:DIGITS_TEST], order[DIGITS_TEST:]
    every = Examples(inputs, labels)
    return Dataset("digits", every.take(train), every.take(test), DIGITS)


FASHION_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


FASHION_MNIST_CLASSES = (
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


def load_fashion_mnist(data_dir: Path | None) -> Dataset:
    """Load Fashion-MNIST: 60,000 + 10,000 grey images of 28 × 28, 10 classes of clothing.

    Raises:
        DataError: If its four files are not there or are broken.
    """
    paths = _find_files(
        "Fashion-MNIST",
        FASHION_MNIST_FILES,
        data_dir,
        folders=("fashion-mnist", "FashionMNIST/raw"),
        download="torchvision.datasets.FashionMNIST(DIR, download=True)",
    )
    images, labels, test_images, test_labels = paths
    n_classes = len(FASHION_MNIST_CLASSES)
    train = _idx_examples(images, labels, n_classes)
    test = _idx_examples(test_images, test_labels, n_classes, first_id=len(train))
    return Dataset("fashion_mnist", train, test, FASHION_MNIST_CLASSES)


def _idx_examples(images: Path, labels: Path, n_classes: int, first_id: int = 0) -> Examples:
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise DataError(f"{labels}: {len(classes):,} labels for {len(pixels):,} images")
    outside = np.flatnonzero(classes >= n_classes)
    if len(outside):
        raise DataError(
            f"{labels}: row {outside[0] + 1}: needs a class from 0 to {n_classes - 1}, "
            f"got {classes[outside[0]]}"
        )
    ids = np.arange(first_id, first_id + len(classes))
    return Examples(pixels[:, None], classes.astype(np.int64), ids=ids)


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
