"""Composites: real images on backgrounds that correlate more or less with their class.

Waterbirds' construction, from any images: a model may learn the background in place of the
object, and then fails where the two disagree.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.random import Generator

from fl_testbed.data.dataset import DataError, Dataset, Examples

BACKGROUND = "background"  # the attribute's name
OPAQUE = 26  # of 255: an object's pixels are brighter than a tenth

Colour = Literal["red", "green", "blue", "yellow", "magenta", "cyan", "grey", "black"]
COLOURS: dict[Colour, tuple[int, int, int]] = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "grey": (128, 128, 128),
    "black": (0, 0, 0),
}
Texture = Literal["horizontal", "vertical", "diagonal", "checks"]
PERIOD = 4  # pixels from stripe to stripe

Painter = Callable[[np.ndarray, Generator], np.ndarray]
"""Takes the number of each image's background, shape (n,), and returns the backgrounds themselves,
bytes of shape (n, channels, height, width)."""


@dataclass(frozen=True)
class Backgrounds:
    """The kinds of background, and how they are painted."""

    names: tuple[str, ...]
    train: Painter
    test: Painter


def coloured(names: Sequence[Colour], size: tuple[int, int]) -> Backgrounds:
    """Return plain colours, by name."""
    palette = np.array([COLOURS[name] for name in names], dtype=np.uint8)

    def paint(kinds: np.ndarray, rng: Generator) -> np.ndarray:
        return np.broadcast_to(palette[kinds][:, :, None, None], (len(kinds), 3, *size))

    return Backgrounds(tuple(names), paint, paint)


def textured(names: Sequence[Texture], size: tuple[int, int], brightness: float) -> Backgrounds:
    """Return grey stripes or checks, shifted at random for each image."""
    rows, columns = np.indices(size)

    def paint(kinds: np.ndarray, rng: Generator) -> np.ndarray:
        shifts = rng.integers(0, PERIOD, size=(2, len(kinds), 1, 1))
        y, x = rows + shifts[0], columns + shifts[1]
        half = PERIOD // 2
        patterns = {
            "horizontal": y % PERIOD < half,
            "vertical": x % PERIOD < half,
            "diagonal": (x + y) % PERIOD < half,
            "checks": (x // half + y // half) % 2 == 0,
        }
        chosen = np.stack([patterns[name] for name in names])[kinds, np.arange(len(kinds))]
        return (chosen[:, None] * round(255 * brightness)).astype(np.uint8)

    return Backgrounds(tuple(names), paint, paint)


def photographed(dataset: Dataset, classes: Sequence[int]) -> Backgrounds:
    """Return images of another dataset, a class for each kind of background.

    They are drawn with replacement: from its training set for training, from its test set for
    testing.

    Raises:
        DataError: If it lacks one of the classes, or images of one.
    """
    for label in classes:
        if label >= dataset.n_classes:
            raise DataError(
                f"dataset.background.classes needs classes from 0 to {dataset.n_classes - 1}, got "
                f"{label}"
            )

    def painter(examples: Examples) -> Painter:
        images = _as_bytes(examples.inputs)
        rows = [np.flatnonzero(examples.labels == label) for label in classes]
        for label, own in zip(classes, rows, strict=True):
            if not len(own):
                raise DataError(f"{dataset.name} has no image of class {label} for a background")

        def paint(kinds: np.ndarray, rng: Generator) -> np.ndarray:
            chosen = np.empty(len(kinds), dtype=np.int64)
            for kind, own in enumerate(rows):
                mask = kinds == kind
                chosen[mask] = rng.choice(own, np.count_nonzero(mask))
            return images[chosen]

        return paint

    names = tuple(dataset.classes[label] for label in classes)
    return Backgrounds(names, painter(dataset.train), painter(dataset.test))


def load_composite(
    foreground: Dataset,
    backgrounds: Backgrounds,
    rng: Generator,
    classes: Sequence[int] | None = None,
    correlation: float = 0.95,
    counts: Sequence[Sequence[int]] | None = None,
    layout: Literal["behind", "beside"] = "behind",
    attribute: str = BACKGROUND,
) -> Dataset:
    """Put a dataset's images on backgrounds that correlate with their classes.

    The k-th class is paired with background ``k mod A`` of A. In training, a share ``correlation``
    of the class is on this background and the rest is split equally over the others; the test set
    has every image on every background. An attribute tells the background.

    Args:
        foreground: The objects; with the layout ``behind`` they must be on black.
        backgrounds: What they are put on.
        rng: Draws which image gets which background.
        classes: The foreground's classes that are used; all by default.
        correlation: 1 / A: no correlation; 1: the background gives the class away.
        counts: Training images of each class (rows) on each background (columns), in place of all
            images and a correlation.
        layout: ``behind``: seen wherever the object is black; ``beside``: object and background
            side by side, both at half their size.
        attribute: The name of the attribute that tells the background.

    Raises:
        DataError: If there are too few images, or their sizes do not fit.
    """
    used = list(range(foreground.n_classes)) if classes is None else list(classes)
    for label in used:
        if label >= foreground.n_classes:
            raise DataError(
                f"dataset.classes needs classes from 0 to {foreground.n_classes - 1}, got {label}"
            )
    n_kinds = len(backgrounds.names)
    if counts is not None and [len(row) for row in counts] != [n_kinds] * len(used):
        raise DataError(
            f"dataset.counts needs {len(used)} rows (classes) of {n_kinds} numbers (backgrounds)"
        )
    new_label = np.zeros(foreground.n_classes, dtype=np.int64)
    new_label[used] = np.arange(len(used))

    def composed(own: Examples, kinds: np.ndarray, paint: Painter) -> Examples:
        images = _put_together(_as_bytes(own.inputs), paint(kinds, rng), layout)
        attributes = {**own.attributes, attribute: kinds}
        return replace(own, inputs=images, labels=new_label[own.labels], attributes=attributes)

    train_rows, train_kinds = [], []
    for place, label in enumerate(used):
        rows = rng.permutation(np.flatnonzero(foreground.train.labels == label))
        if counts is not None:
            sizes = np.array(counts[place])
            if sizes.sum() > len(rows):
                raise DataError(
                    f"dataset.counts asks for {sizes.sum():,} images of class {label}, "
                    f"{foreground.name} has {len(rows):,}"
                )
        else:
            sizes = _sizes(len(rows), place % n_kinds, n_kinds, correlation)
        train_rows.append(rows[: sizes.sum()])
        train_kinds.append(np.repeat(np.arange(n_kinds), sizes))
    order = rng.permutation(sum(map(len, train_rows)))
    rows, kinds = np.concatenate(train_rows)[order], np.concatenate(train_kinds)[order]
    train = composed(foreground.train.take(rows), kinds, backgrounds.train)
    shown = np.flatnonzero(np.isin(foreground.test.labels, used))
    order = rng.permutation(len(shown) * n_kinds)
    rows, kinds = np.repeat(shown, n_kinds)[order], np.tile(np.arange(n_kinds), len(shown))[order]
    test = composed(foreground.test.take(rows), kinds, backgrounds.test)
    names = tuple(foreground.classes[label] for label in used)
    values = {**foreground.attributes, attribute: backgrounds.names}
    return Dataset(f"composite of {foreground.name}", train, test, names, values)


def _sizes(n: int, own: int, n_kinds: int, correlation: float) -> np.ndarray:
    """Split n images over kinds of background: a share to their own, the rest evenly to others."""
    if n_kinds == 1:
        return np.array([n])
    matched = round(correlation * n)
    others = np.diff(np.arange(n_kinds) * (n - matched) // (n_kinds - 1))
    return np.insert(others, own, matched)


def _put_together(objects: np.ndarray, painted: np.ndarray, layout: str) -> np.ndarray:
    """Return images of objects on, or beside, what was painted for each of them."""
    if objects.shape[2:] != painted.shape[2:]:
        raise DataError(
            f"the foreground has {objects.shape[2]} × {objects.shape[3]} pixels, the background "
            f"{painted.shape[2]} × {painted.shape[3]}: they must have the same size"
        )
    channels = max(objects.shape[1], painted.shape[1])
    shape = (len(objects), channels, *objects.shape[2:])
    objects, painted = np.broadcast_to(objects, shape), np.broadcast_to(painted, shape)
    if layout == "beside":
        return np.concatenate([_halved(objects), _halved(painted)], axis=3)
    is_object = objects.max(axis=1, keepdims=True) >= OPAQUE
    return np.where(is_object, objects, painted)


def _as_bytes(images: np.ndarray) -> np.ndarray:
    if images.dtype == np.uint8:
        return images
    return np.rint(images * 255).astype(np.uint8)


def _halved(images: np.ndarray) -> np.ndarray:
    """Return images of half the height and width, each pixel the mean of four."""
    n, channels, height, width = images.shape
    if height % 2 or width % 2:
        raise DataError(f"images of {height} × {width} pixels cannot be halved to lie side by side")
    blocks = images.reshape(n, channels, height // 2, 2, width // 2, 2)
    return np.rint(blocks.mean(axis=(3, 5), dtype=np.float32)).astype(np.uint8)
