import numpy as np
import sklearn.datasets

from fl_testbed.data.sources import load_digits


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_they_are_1797_grey_images_of_10_classes():
    digits = load_digits(rng())
    assert (len(digits.train), len(digits.test)) == (1_397, 400)
    assert (digits.input_shape, digits.n_classes) == ((1, 8, 8), 10)
    for examples in (digits.train, digits.test):
        assert examples.inputs.dtype == np.float32
        assert (examples.inputs.min(), examples.inputs.max()) == (0, 1)
        assert set(examples.labels) == set(range(10))


def test_they_are_those_that_scikit_learn_loads():
    digits = load_digits(rng())
    pixels, classes = sklearn.datasets.load_digits(return_X_y=True)
    for examples in (digits.train, digits.test):
        assert np.array_equal(examples.inputs.reshape(-1, 64) * 16, pixels[examples.ids])
        assert np.array_equal(examples.labels, classes[examples.ids])


def test_no_image_is_both_in_the_training_and_in_the_test_set():
    digits = load_digits(rng())
    # All 1,797 images differ from each other, so images can stand for rows.
    images = [image.tobytes() for e in (digits.train, digits.test) for image in e.inputs]
    assert len(set(images)) == 1_797


def test_the_two_sets_have_different_numbers_of_the_same_file():
    digits = load_digits(rng())
    assert sorted(np.concatenate([digits.train.ids, digits.test.ids])) == list(range(1_797))


def test_the_seed_draws_the_split():
    first, again, other = (load_digits(rng(seed)).test for seed in (1, 1, 2))
    assert np.array_equal(first.inputs, again.inputs)
    assert not np.array_equal(first.inputs, other.inputs)
