"""scikit-learn's bundled handwritten digits."""

import numpy as np
from numpy.random import Generator

from fl_testbed.data.dataset import Dataset, Examples

DIGITS = tuple("0123456789")
N_TEST = 400


def load_digits(rng: Generator) -> Dataset:
    """Load 1,797 grey images of 8 × 8, 10 classes.

    They come without a split, so the seed draws 400 of them for testing.
    """
    import sklearn.datasets  # two seconds that every other command can do without

    pixels, classes = sklearn.datasets.load_digits(return_X_y=True)
    inputs = (np.asarray(pixels).reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    labels = np.asarray(classes, dtype=np.int64)
    order = rng.permutation(len(labels))
    test, train = order[:N_TEST], order[N_TEST:]
    every = Examples(inputs, labels)
    return Dataset("digits", every.take(train), every.take(test), DIGITS)
