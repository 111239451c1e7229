"""scikit-learn's bundled handwritten digits."""

from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import numpy as np
from numpy.random import Generator

from fl_testbed.data.dataset import Dataset, Examples
from fl_testbed.data.sources.files import read_text

DIGITS = tuple("0123456789")
N_TEST = 400


def load_digits(rng: Generator) -> Dataset:
    """Load 1,797 grey images of 8 × 8, 10 classes.

    They come without a split, so the seed draws 400 of them for testing.
    """
    package = find_spec("sklearn")
    assert package is not None
    assert package.submodule_search_locations is not None
    # Read the file directly: importing sklearn takes as long as a small run.
    path = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    table = np.loadtxt(StringIO(read_text(path)), delimiter=",")
    inputs = (table[:, :-1].reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    labels = table[:, -1].astype(np.int64)
    order = rng.permutation(len(labels))
    test, train = order[:N_TEST], order[N_TEST:]
    every = Examples(inputs, labels)
    return Dataset("digits", every.take(train), every.take(test), DIGITS)
