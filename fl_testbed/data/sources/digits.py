"""scikit-learn's bundled handwritten digits."""

from importlib.metadata import distribution

import numpy as np
from numpy.random import Generator

from fl_testbed.data.dataset import Dataset, Examples

DIGITS = tuple("0123456789")
N_TEST = 400
FILE = "sklearn/datasets/data/digits.csv.gz"


def load_digits(rng: Generator) -> Dataset:
    """Load 1,797 grey images of 8 × 8, 10 classes.

    They come without a split, so the seed draws 400 of them for testing.
    """
    # Its file alone, and not sklearn.datasets.load_digits: importing that takes two seconds.
    table = np.loadtxt(str(distribution("scikit-learn").locate_file(FILE)), delimiter=",")
    inputs = (table[:, :-1].reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    labels = table[:, -1].astype(np.int64)
    order = rng.permutation(len(labels))
    test, train = order[:N_TEST], order[N_TEST:]
    every = Examples(inputs, labels)
    return Dataset("digits", every.take(train), every.take(test), DIGITS)
