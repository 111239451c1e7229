"""A dataset in memory: numpy arrays, so that Ray shares them between workers without a copy."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b

import numpy as np


class DataError(ValueError):
    """Data that is not there, cannot be read, or does not suffice; the text says what to do."""


@dataclass(frozen=True)
class Examples:
    """Inputs, labels and whatever else is known of each example, row by row."""

    inputs: np.ndarray
    """Images as (n, channels, height, width), uint8 or float32 in [0, 1]; or (n, features)."""
    labels: np.ndarray
    """Classes as int64, shape (n,)."""
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)
    """By attribute name, each example's value as a code, whole numbers, shape (n,)."""
    clients: np.ndarray | None = None
    """The natural client that each example comes from, such as its writer, as whole numbers, shape
    (n,)."""
    ids: np.ndarray | None = None
    """Each example's number across all of the publisher's files, int64, shape (n,). No number is in
    both the training and the test set. By default the row number."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Examples":
        """Return some of the examples, in the order of the rows."""
        return Examples(
            self.inputs[rows],
            self.labels[rows],
            {name: codes[rows] for name, codes in self.attributes.items()},
            None if self.clients is None else self.clients[rows],
            rows if self.ids is None else self.ids[rows],
        )

    def locked(self) -> "Examples":
        """Return the same examples, without a copy, in arrays that cannot be written to."""
        given = {name: codes.view() for name, codes in self.attributes.items()}
        inputs, labels = self.inputs.view(), self.labels.view()
        clients, ids = (own if own is None else own.view() for own in (self.clients, self.ids))
        for array in (inputs, labels, clients, ids, *given.values()):
            if array is not None:
                array.flags.writeable = False
        return Examples(inputs, labels, given, clients, ids)

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield each array that describes the examples, with its name."""
        named = {"inputs": self.inputs, "labels": self.labels, "clients": self.clients}
        named |= {f"attribute {name}": codes for name, codes in sorted(self.attributes.items())}
        yield from ((name, array) for name, array in named.items() if array is not None)

    def unit_inputs(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return a float32 copy of some rows, bytes scaled to [0, 1]."""
        chosen = self.inputs[rows]
        if chosen.dtype == np.uint8:
            return chosen.astype(np.float32) / np.float32(255)
        return np.array(chosen, dtype=np.float32)


def numbered(train: Examples, test: Examples) -> tuple[Examples, Examples]:
    """Return both sets with ids, those of the test set after those of the training set."""
    ids = np.arange(len(train) + len(test))
    return replace(train, ids=ids[: len(train)]), replace(test, ids=ids[len(train) :])


@dataclass(frozen=True)
class NumberFeature:
    """A number that is one standardised input of the model."""

    place: int
    """The index of its input."""
    mean: float
    scale: float
    is_log: bool
    """Whether log(1 + x) is standardised in place of x."""

    def encoded(self, values: np.ndarray) -> np.ndarray:
        """Return values as the model is given them: standardised."""
        return ((np.log1p(values) if self.is_log else values) - self.mean) / self.scale

    def inputs_of(self, value: float | str) -> dict[int, float]:
        """Return the inputs that encode this value, by index.

        Raises:
            ValueError: If it is no number, or its logarithm is needed and does not exist.
        """
        if isinstance(value, str) or (self.is_log and value <= -1):
            raise ValueError(f"needs a number{' > -1' if self.is_log else ''}, got {value!r}")
        return {self.place: float(self.encoded(np.array(float(value))))}

    def value_of(self, inputs: np.ndarray) -> str:
        """Return what one row of inputs says, as text."""
        value = float(inputs[self.place]) * self.scale + self.mean
        if abs(value) < 1e-6 * (self.scale + abs(self.mean)):  # float32 rounding of a 0
            value = 0.0
        return f"{math.expm1(value) if self.is_log else value:.5g}"


@dataclass(frozen=True)
class CategoryFeature:
    """A category with one input for each possible value: 1 where the example has it, else 0."""

    place: int
    """The index of the first value's input."""
    values: tuple[str, ...]

    def inputs_of(self, value: float | str) -> dict[int, float]:
        """Return the inputs that encode this value, by index.

        Raises:
            ValueError: If there is no such value.
        """
        if value not in self.values:
            raise ValueError(f"needs one of {', '.join(self.values)}, got {value!r}")
        return {self.place + i: float(own == value) for i, own in enumerate(self.values)}

    def value_of(self, inputs: np.ndarray) -> str:
        """Return what one row of inputs says, as text."""
        own = inputs[self.place : self.place + len(self.values)]
        return self.values[int(own.argmax())]


Feature = NumberFeature | CategoryFeature


@dataclass(frozen=True)
class Dataset:
    """Examples to train on and examples to test on, from different people or files."""

    name: str
    train: Examples
    test: Examples
    classes: tuple[str, ...]
    """What the labels stand for."""
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By name of an attribute, what its codes stand for."""
    features: Mapping[str, Feature] = field(default_factory=dict)
    """By column of a table, how it is encoded; empty for images."""

    @property
    def n_classes(self) -> int:
        """How many classes there are, whether or not each has examples."""
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.train.inputs.shape[1:])

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all examples in their order, 16 digits: it differs if any of them does.

        Tables are standardised in float64 and kept as float32, so that means which differ in
        their last bits on another machine do not change it.
        """
        hashed = blake2b(digest_size=8)
        hashed.update(f"{self.classes} {sorted(self.attributes.items())}".encode())
        for part, examples in (("train", self.train), ("test", self.test)):
            for name, array in examples.arrays():
                hashed.update(f"{part} {name} {array.dtype} {array.shape}".encode())
                hashed.update(np.ascontiguousarray(array).data)
        return hashed.hexdigest()

    @property
    def holds_images(self) -> bool:
        """Whether inputs are images, with values in [0, 1], and not rows of features."""
        return len(self.input_shape) == 3

    def need_images(self, who: str, instead: str = "") -> None:
        """Raise DataError if it holds no images; the text says who needs them and what to use."""
        if not self.holds_images:
            advice = instead and f": choose {instead}"
            raise DataError(f"{who} needs images, but {self.name} holds features{advice}")


def long_tailed(dataset: Dataset, ratio: float, *, test: bool) -> Dataset:
    """Thin out the classes so that their sizes fall geometrically.

    Class i of C keeps n_i ratio^(-i / (C - 1)) of its n_i examples, rounded down but at least one,
    taken at even distances in the order of the file, so that no seed decides and no writer or
    source that comes last is lost.

    Args:
        dataset: With the classes at their full sizes.
        ratio: How many times smaller the last class gets than the first, >= 1.
        test: Whether the test set is thinned out too. Karimireddy et al. do: their "ratio 500" is
            a half from class to class in their code, so 512.

    References:
        Karimireddy et al., Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing,
        ICLR 2022.
    """

    def thinned(examples: Examples) -> Examples:
        kept = []
        for label in range(dataset.n_classes):
            rows = np.flatnonzero(examples.labels == label)
            share = ratio ** (-label / max(1, dataset.n_classes - 1))
            count = min(len(rows), max(1, int(len(rows) * share + 1e-9)))
            kept.append(rows[np.arange(count) * len(rows) // max(1, count)])
        return examples.take(np.sort(np.concatenate(kept)))

    changed = replace(dataset, train=thinned(dataset.train))
    return replace(changed, test=thinned(dataset.test)) if test else changed
