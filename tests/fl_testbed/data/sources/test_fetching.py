"""What is downloaded, and from where, without a network: torchvision is told apart by its calls.

It is named, not imported: with it comes torch's compiler, which no other test needs.
"""

import gzip

import numpy as np
import pytest
from test_mnist import idx

from fl_testbed.data import DataError
from fl_testbed.data.sources import BY_HAND, FETCHERS, fetch
from fl_testbed.data.sources.fetching import remedy
from fl_testbed.data.sources.mnist import IDX_FILES
from fl_testbed.scenario.catalogue import CATALOGUE

UTILS = "torchvision.datasets.utils"


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "CelebA"])
def test_torchvision_downloads_into_the_data_folder(name, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(
        f"torchvision.datasets.{name}", lambda root, download: calls.append((root, download))
    )
    kind = {"MNIST": "mnist", "FashionMNIST": "fashion_mnist", "CelebA": "celeba"}[name]
    fetch(kind, tmp_path)
    assert calls == [(str(tmp_path), True)]


def test_writers_are_the_label_tables_beside_mnist_s_images(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("torchvision.datasets.MNIST", lambda root, download: calls.append(root))
    monkeypatch.setattr(f"{UTILS}.download_url", lambda url, root, md5: calls.append((url, root)))
    fetch("mnist_writers", tmp_path)
    names = [url.rsplit("/", 1)[1] for url, _ in calls[1:]]
    assert names == ["qmnist-train-labels-idx2-int.gz", "qmnist-test-labels-idx2-int.gz"]
    assert {root for _, root in calls[1:]} == {str(tmp_path / "MNIST" / "raw")}


def test_cifar10_is_the_binary_version(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(
        f"{UTILS}.download_and_extract_archive", lambda url, root, md5: calls.append((url, md5))
    )
    fetch("cifar10", tmp_path)
    assert calls == [
        (
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
        )
    ]


def test_what_is_there_is_not_downloaded_again_and_what_is_broken_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", None)
    (tmp_path / "fashion-mnist").mkdir()
    for name, n in zip(IDX_FILES, (2, 2, 1, 1), strict=True):
        content = idx(np.ones((n, 2, 2) if "images" in name else n))
        (tmp_path / "fashion-mnist" / f"{name}.gz").write_bytes(gzip.compress(content))
    assert not fetch("fashion_mnist", tmp_path)
    (tmp_path / "fashion-mnist" / f"{IDX_FILES[0]}.gz").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz: broken .*: copy it again"):
        fetch("fashion_mnist", tmp_path)


def test_a_failed_download_is_one_line(monkeypatch, tmp_path):
    def fail(root, download):
        raise RuntimeError("Error downloading\ntrain-images")

    monkeypatch.setattr("torchvision.datasets.MNIST", fail)
    with pytest.raises(DataError) as error:
        fetch("mnist", tmp_path)
    assert str(error.value) == (
        f"mnist could not be downloaded to {tmp_path}: Error downloading train-images"
    )


def test_every_dataset_that_needs_files_says_how_to_get_them():
    needs_none = {"digits", "image_folder", "csv", "composite", "dominoes"}
    for kind in CATALOGUE["datasets"].keys() - needs_none:
        assert remedy(kind)
    assert FETCHERS.keys() | BY_HAND.keys() == CATALOGUE["datasets"].keys() - needs_none
