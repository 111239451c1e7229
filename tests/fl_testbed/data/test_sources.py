import gzip
import re
import struct

import numpy as np
import pytest

from fl_testbed.data import DataError, load_digits, load_fashion_mnist
from fl_testbed.data.dataset import Examples
from fl_testbed.data.sources import FASHION_MNIST_FILES


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestDigits:
    def test_they_are_1797_grey_images_of_10_classes(self):
        digits = load_digits(rng())
        assert (len(digits.train), len(digits.test)) == (1_397, 400)
        assert (digits.input_shape, digits.n_classes) == ((1, 8, 8), 10)
        for examples in (digits.train, digits.test):
            assert examples.inputs.dtype == np.float32
            assert (examples.inputs.min(), examples.inputs.max()) == (0, 1)
            assert set(examples.labels) == set(range(10))

    def test_no_image_is_both_in_the_training_and_in_the_test_set(self):
        digits = load_digits(rng())
        # All 1,797 images differ from each other, so images can stand for rows.
        images = [image.tobytes() for e in (digits.train, digits.test) for image in e.inputs]
        assert len(set(images)) == 1_797

    def test_the_two_sets_have_different_numbers_of_the_same_file(self):
        digits = load_digits(rng())
        assert sorted(np.concatenate([digits.train.ids, digits.test.ids])) == list(range(1_797))

    def test_the_seed_draws_the_split(self):
        first, again, other = (load_digits(rng(seed)).test for seed in (1, 1, 2))
        assert np.array_equal(first.inputs, again.inputs)
        assert not np.array_equal(first.inputs, other.inputs)


class TestUnitInputs:
    def test_bytes_become_fractions_of_255(self):
        examples = Examples(np.array([[0, 51, 255]], dtype=np.uint8), np.zeros(1, dtype=np.int64))
        inputs = examples.unit_inputs(slice(None))
        assert inputs.dtype == np.float32
        assert inputs[0].tolist() == pytest.approx([0, 0.2, 1])

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_writing_into_them_does_not_change_the_dataset(self, dtype):
        examples = Examples(np.ones((2, 3), dtype=dtype), np.zeros(2, dtype=np.int64))
        examples.unit_inputs(slice(None))[:] = 0.5
        assert (examples.inputs == 1).all()


class TestFashionMnist:
    def test_it_is_complete_and_balanced(self, data_dir):
        fashion = load_fashion_mnist(data_dir)
        assert (fashion.input_shape, fashion.n_classes) == ((1, 28, 28), 10)
        assert np.bincount(fashion.train.labels).tolist() == [6_000] * 10
        assert np.bincount(fashion.test.labels).tolist() == [1_000] * 10
        assert len(fashion.train.inputs) == 60_000
        assert (fashion.train.inputs.min(), fashion.train.inputs.max()) == (0, 255)

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
        for part in ("--data-dir DIR", "FL_TESTBED_DATA", *FASHION_MNIST_FILES, "download=True"):
            assert part in str(error.value)

    def test_missing_files_are_named_with_the_folders_and_the_download(self, tmp_path):
        folder = tmp_path / "fashion-mnist"
        folder.mkdir()
        (folder / FASHION_MNIST_FILES[0]).touch()
        with pytest.raises(DataError) as error:
            load_fashion_mnist(tmp_path)
        text = str(error.value)
        assert "\n" not in text
        for part in (*FASHION_MNIST_FILES, str(folder), str(tmp_path / "FashionMNIST" / "raw")):
            assert part in text
        command = re.search(r'python -c "(.*)"', text)
        assert command is not None
        compile(command[1], "command", "exec")
        assert f"FashionMNIST('{tmp_path}', download=True)" in command[1]

    @pytest.fixture
    def tiny(self, tmp_path):
        """Two training and one test image, in the folder that torchvision would make."""
        folder = tmp_path / "FashionMNIST" / "raw"
        folder.mkdir(parents=True)
        for name, n in zip(FASHION_MNIST_FILES, (2, 2, 1, 1), strict=True):
            if "images" in name:
                content = struct.pack(">BBBBIII", 0, 0, 8, 3, n, 2, 2) + bytes(range(4 * n))
            else:
                content = struct.pack(">BBBBI", 0, 0, 8, 1, n) + bytes([5, 3][:n])
            (folder / name).write_bytes(content)
        return folder

    def test_the_folder_of_torchvision_is_found_too(self, tiny):
        fashion = load_fashion_mnist(tiny.parents[1])
        assert fashion.train.inputs.tolist() == [[[[0, 1], [2, 3]]], [[[4, 5], [6, 7]]]]
        assert fashion.train.labels.tolist() == [5, 3]
        assert fashion.train.labels.dtype == np.int64

    def test_plain_and_gzipped_files_may_lie_side_by_side(self, tiny):
        plain = tiny / FASHION_MNIST_FILES[1]
        plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
        assert load_fashion_mnist(tiny.parents[1]).train.labels.tolist() == [5, 3]

    def test_a_label_outside_the_classes_is_refused_with_its_row(self, tiny):
        name = FASHION_MNIST_FILES[1]
        (tiny / name).write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 2) + bytes([9, 10]))
        with pytest.raises(DataError, match=f"{name}: row 2: needs a class from 0 to 9, got 10"):
            load_fashion_mnist(tiny.parents[1])

    def test_labels_that_are_not_as_many_as_images_are_refused(self, tiny):
        name = FASHION_MNIST_FILES[1]
        (tiny / name).write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 3) + bytes(3))
        with pytest.raises(DataError, match=f"{name}: 3 labels for 2 images"):
            load_fashion_mnist(tiny.parents[1])
