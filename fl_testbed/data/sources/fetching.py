"""Which datasets can be downloaded, and which have to be fetched by hand."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from fl_testbed.data.dataset import DataError
from fl_testbed.data.sources.files import MissingFilesError

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"

BY_HAND = {
    "adult": "get adult.data and adult.test from the UCI Machine Learning Repository "
    "(https://archive.ics.uci.edu/dataset/2/adult) and put them into adult/",
    "compas": "get compas-scores-two-years.csv from https://github.com/propublica/compas-analysis "
    "and put it into compas/",
    "fairface": "get the two label files and the images (a zip file, or its folders train and val) "
    "from https://github.com/joojs/fairface and put them into fairface/",
    "waterbirds": "get waterbirds_v1.0 with the wilds package (wilds.get_dataset('waterbirds', "
    "download=True)) and put it into the data folder",
    "femnist": "make it with LEAF (https://github.com/TalwalkarLab/leaf, data/femnist, "
    "./preprocess.sh -s niid -t sample) and put its data folder into femnist/",
}


def remedy(kind: str) -> str:
    """Return how to get a dataset's files, as the end of a sentence."""
    if kind in FETCHERS:
        return f"to download them: fl-testbed data fetch {kind} --data-dir DIR"
    return BY_HAND[kind]


def fetch(kind: str, data_dir: Path) -> bool:
    """Download a dataset's files into the data folder, unless its loader finds them there.

    Returns:
        Whether they had to be downloaded.

    Raises:
        DataError: If it cannot be downloaded, or the files there are broken; the text says what to
            do instead.
    """
    if kind not in FETCHERS:
        if kind in BY_HAND:
            raise DataError(f"{kind} cannot be downloaded automatically: {BY_HAND[kind]}")
        raise DataError(
            f"there is nothing to download for {kind!r}, only for {', '.join(FETCHERS)}"
        )
    if _is_there(kind, data_dir):
        return False
    try:
        FETCHERS[kind](str(data_dir))
    except (OSError, RuntimeError) as fault:  # raised by torchvision: no network, a wrong checksum
        text = " ".join(str(fault).split())
        raise DataError(f"{kind} could not be downloaded to {data_dir}: {text}") from fault
    return True


def _is_there(kind: str, data_dir: Path) -> bool:
    from fl_testbed.data import sources  # imported here: loaders import this module

    if kind == "celeba":  # torchvision checks the same folder, without reading images
        return False
    try:
        if kind == "mnist_writers":
            for part in ("t10k", "train"):
                sources.load_mnist_writers(data_dir, np.random.default_rng(0), part)
        else:
            getattr(sources, f"load_{kind}")(data_dir)
    except MissingFilesError:
        return False
    return True


def _of_torchvision(name: str, root: str) -> None:
    from torchvision import datasets

    getattr(datasets, name)(root, download=True)


def _mnist_writers(root: str) -> None:
    from torchvision.datasets import QMNIST
    from torchvision.datasets.utils import download_url

    _of_torchvision("MNIST", root)
    for part in ("train", "test"):  # only the label tables: the images are MNIST's
        url, md5 = QMNIST.resources[part][1]
        download_url(url, str(Path(root) / "MNIST" / "raw"), md5=md5)


def _cifar10(root: str) -> None:
    from torchvision.datasets.utils import download_and_extract_archive

    download_and_extract_archive(CIFAR10_URL, root, md5=CIFAR10_MD5)


FETCHERS: dict[str, Callable[[str], None]] = {
    "mnist": partial(_of_torchvision, "MNIST"),
    "fashion_mnist": partial(_of_torchvision, "FashionMNIST"),
    "mnist_writers": _mnist_writers,
    "cifar10": _cifar10,
    "celeba": partial(_of_torchvision, "CelebA"),
}
