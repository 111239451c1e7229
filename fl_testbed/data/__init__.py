"""Datasets, their groups, and how they are shared out to clients."""

from fl_testbed.data.dataset import DataError, Dataset, Examples
from fl_testbed.data.federation import Federation, Population
from fl_testbed.data.sources import DATASETS, load_digits, load_fashion_mnist

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "Examples",
    "Federation",
    "Population",
    "load_digits",
    "load_fashion_mnist",
]
