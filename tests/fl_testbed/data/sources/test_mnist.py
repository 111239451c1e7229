import gzip
import struct

import numpy as np
import pytest

from fl_testbed.data import DataError
from fl_testbed.data.sources import load_fashion_mnist, load_mnist, load_mnist_writers
from fl_testbed.data.sources.mnist import IDX_FILES


def idx(values: np.ndarray, kind: int = 8) -> bytes:
    """Return an IDX file: bytes, or with 12 for a kind big-endian integers."""
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, kind, values.ndim, *values.shape)
    return header + values.astype(">i4" if kind == 12 else np.uint8).tobytes()


class TestFashionMnist:
    def test_it_is_complete_and_balanced(self, data_dir):
        fashion = load_fashion_mnist(data_dir)
        assert (fashion.input_shape, fashion.n_classes) == ((1, 28, 28), 10)
        assert np.bincount(fashion.train.labels).tolist() == [6_000] * 10
        assert np.bincount(fashion.test.labels).tolist() == [1_000] * 10
        assert len(fashion.train.inputs) == 60_000
        assert (fashion.train.inputs.min(), fashion.train.inputs.max()) == (0, 255)

    def test_training_and_test_examples_have_numbers_of_their_own(self, data_dir):
        fashion = load_fashion_mnist(data_dir)
        assert len({*fashion.train.ids.tolist(), *fashion.test.ids.tolist()}) == 70_000

    def test_images_go_with_their_labels(self, data_dir):
        # Trousers (class 1) are dark between the legs and sneakers (7) are low and wide.
        fashion = load_fashion_mnist(data_dir)
        trouser, sneaker = (
            fashion.test.inputs[fashion.test.labels == label, 0].mean(axis=0) for label in (1, 7)
        )
        assert trouser[:5].mean() > 4 * sneaker[:5].mean()
        assert sneaker[14:18].mean() > trouser[14:18].mean()

    def test_without_a_folder_it_says_how_to_name_one(self):
        with pytest.raises(DataError) as error:
            load_fashion_mnist(None)
        for part in (
            "--data-dir DIR",
            "FL_TESTBED_DATA",
            *IDX_FILES,
            "fl-testbed data fetch fashion_mnist",
        ):
            assert part in str(error.value)

    def test_missing_files_are_named_with_the_folders_and_the_download(self, tmp_path):
        folder = tmp_path / "fashion-mnist"
        folder.mkdir()
        (folder / IDX_FILES[0]).touch()
        with pytest.raises(DataError) as error:
            load_fashion_mnist(tmp_path)
        text = str(error.value)
        assert "\n" not in text
        for part in (*IDX_FILES, str(folder), str(tmp_path / "FashionMNIST" / "raw")):
            assert part in text
        assert text.endswith("to download them: fl-testbed data fetch fashion_mnist --data-dir DIR")

    @pytest.fixture
    def tiny(self, tmp_path):
        """Two training and one test image, in the folder that torchvision would make."""
        folder = tmp_path / "FashionMNIST" / "raw"
        folder.mkdir(parents=True)
        for name, n in zip(IDX_FILES, (2, 2, 1, 1), strict=True):
            pixels, labels = np.arange(4 * n).reshape(n, 2, 2), np.array([5, 3][:n])
            (folder / name).write_bytes(idx(pixels if "images" in name else labels))
        return folder

    def test_the_folder_of_torchvision_is_found_too(self, tiny):
        fashion = load_fashion_mnist(tiny.parents[1])
        assert fashion.train.inputs.tolist() == [[[[0, 1], [2, 3]]], [[[4, 5], [6, 7]]]]
        assert fashion.train.labels.tolist() == [5, 3]
        assert fashion.train.labels.dtype == np.int64

    def test_plain_and_gzipped_files_may_lie_side_by_side(self, tiny):
        plain = tiny / IDX_FILES[1]
        plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
        assert load_fashion_mnist(tiny.parents[1]).train.labels.tolist() == [5, 3]

    @pytest.mark.parametrize("label", [10, -1])
    def test_a_label_outside_the_classes_is_refused_with_its_row(self, tiny, label):
        name = IDX_FILES[1]
        (tiny / name).write_bytes(idx(np.array([9, label]), kind=12))
        text = f"{name}: row 2: needs a class from 0 to 9, got {label}"
        with pytest.raises(DataError, match=text):
            load_fashion_mnist(tiny.parents[1])

    def test_labels_that_are_not_as_many_as_images_are_refused(self, tiny):
        name = IDX_FILES[1]
        (tiny / name).write_bytes(idx(np.zeros(3)))
        with pytest.raises(DataError, match=f"{name}: has 3 labels for 2 images"):
            load_fashion_mnist(tiny.parents[1])

    def test_test_images_of_another_size_are_refused(self, tiny):
        (tiny / IDX_FILES[2]).write_bytes(idx(np.zeros((1, 3, 3))))
        with pytest.raises(DataError, match=r"t10k-images.*: has images of \(3, 3\) pixels"):
            load_fashion_mnist(tiny.parents[1])


def test_mnist_is_found_where_torchvision_puts_it(tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in IDX_FILES:
        values = np.zeros((3, 28, 28)) if "images" in name else np.array([7, 2, 9])
        (folder / name).write_bytes(idx(values))
    mnist = load_mnist(tmp_path)
    assert mnist.train.labels.tolist() == mnist.test.labels.tolist() == [7, 2, 9]
    assert mnist.input_shape == (1, 28, 28)


class TestWriters:
    @pytest.fixture
    def folder(self, tmp_path):
        """Six writers of four digits each, the last three of them students (series 4)."""
        folder = tmp_path / "mnist-writers"
        folder.mkdir()
        digits = np.arange(24) % 10
        writer = np.repeat([90, 17, 3, 44, 5, 61], 4)
        series = np.repeat([0, 1, 0, 4, 4, 4], 4)
        table = np.zeros((30, 8))  # six rows more than images, as the published file has
        table[:24, :3] = np.stack([digits, series, writer], axis=1)
        (folder / "t10k-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(idx(np.arange(24).reshape(24, 1, 1)))
        )
        (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(digits))
        (folder / "qmnist-test-labels-idx2-int").write_bytes(idx(table, 12))
        return folder

    def load(self, folder, seed: int = 0, **options):
        return load_mnist_writers(folder.parent, np.random.default_rng(seed), **options)

    def test_digits_keep_their_writer_and_population(self, folder):
        writers = self.load(folder)
        assert writers.attributes == {"population": ("employees", "students")}
        for part in (writers.train, writers.test):
            numbers = part.inputs.flatten()
            assert part.ids.tolist() == numbers.tolist()
            assert (part.labels == numbers % 10).all()
            assert (part.attributes["population"] == (numbers >= 12)).all()
            same = part.clients[:, None] == part.clients
            assert np.array_equal(same, numbers[:, None] // 4 == numbers // 4)

    def test_no_writer_is_both_in_training_and_in_testing(self, folder):
        for seed in range(5):
            writers = self.load(folder, seed, test_fraction=0.34)
            assert not set(writers.train.clients) & set(writers.test.clients)
            # A third of three writers of each population.
            populations = writers.test.attributes["population"].tolist()
            assert sorted(populations) == [0] * 4 + [1] * 4
            assert len({*writers.train.ids, *writers.test.ids}) == 24

    def test_the_seed_draws_the_test_writers_and_mixes_the_rows(self, folder):
        first, again, other = (self.load(folder, seed).test.ids.tolist() for seed in (1, 1, 2))
        assert first == again != other
        assert self.load(folder).train.ids.tolist() != sorted(self.load(folder).train.ids)

    def test_one_population_can_be_had_alone(self, folder):
        students = self.load(folder, population="students")
        assert set(students.train.attributes["population"]) == {1}
        assert len(students.train) + len(students.test) == 12

    @pytest.mark.parametrize(
        ("table", "fault"),
        [
            (np.zeros((23, 8)), "needs 24 rows of at least 3 columns, one for each image, has 23"),
            (np.zeros((30, 2)), "has 30 of 2"),
            (np.zeros((30, 8)), "row 2: says 0, but the image's label is 1: the files do not"),
        ],
    )
    def test_a_label_table_of_other_images_is_refused(self, folder, table, fault):
        (folder / "qmnist-test-labels-idx2-int").write_bytes(idx(table, 12))
        with pytest.raises(DataError) as error:
            self.load(folder)
        assert fault in str(error.value)
        assert "qmnist-test-labels-idx2-int: " in str(error.value)

    def test_the_shared_files_have_the_counts_of_their_readme(self, data_dir):
        writers = load_mnist_writers(data_dir, np.random.default_rng(0))
        parts = (writers.train, writers.test)
        labels = np.concatenate([part.labels for part in parts])
        populations = np.concatenate([part.attributes["population"] for part in parts])
        assert np.bincount(labels[populations == 0]).tolist() == [
            520, 564, 502, 509, 482, 436, 496, 516, 485, 489
        ]  # fmt: skip
        assert np.bincount(labels[populations == 1]).tolist() == [
            460, 571, 530, 501, 500, 456, 462, 512, 489, 520
        ]  # fmt: skip
        clients = [set(part.clients) for part in parts]
        assert len(clients[0] | clients[1]) == 297
        assert not clients[0] & clients[1]
        assert len({*parts[0].ids, *parts[1].ids}) == 10_000
        digits = np.bincount(np.concatenate([part.clients for part in parts]))
        assert (digits.min(), np.median(digits), digits.max()) == (8, 21, 130)
        assert [(digits >= n).sum() for n in (20, 50)] == [185, 46]
