"""Where datasets come from: loaders of the formats that their publishers use."""

from fl_testbed.data.sources.adult import load_adult
from fl_testbed.data.sources.celeba import load_celeba
from fl_testbed.data.sources.cifar10 import load_cifar10
from fl_testbed.data.sources.compas import load_compas
from fl_testbed.data.sources.composite import load_composite
from fl_testbed.data.sources.csv_file import load_csv
from fl_testbed.data.sources.digits import load_digits
from fl_testbed.data.sources.fairface import load_fairface
from fl_testbed.data.sources.femnist import load_femnist
from fl_testbed.data.sources.fetching import BY_HAND, FETCHERS, fetch
from fl_testbed.data.sources.image_folder import load_image_folder
from fl_testbed.data.sources.mnist import load_fashion_mnist, load_mnist, load_mnist_writers
from fl_testbed.data.sources.own_table import Meanings
from fl_testbed.data.sources.waterbirds import load_waterbirds

__all__ = [
    "BY_HAND",
    "FETCHERS",
    "Meanings",
    "fetch",
    "load_adult",
    "load_celeba",
    "load_cifar10",
    "load_compas",
    "load_composite",
    "load_csv",
    "load_digits",
    "load_fairface",
    "load_fashion_mnist",
    "load_femnist",
    "load_image_folder",
    "load_mnist",
    "load_mnist_writers",
    "load_waterbirds",
]
