"""Styles: ways to change how one group's clients see the images that all clients see."""

from collections.abc import Callable

import numpy as np

Style = Callable[[np.ndarray], np.ndarray]
"""Returns changed copies of images in [0, 1], shape (n, channels, height, width)."""


def inverted(images: np.ndarray) -> np.ndarray:
    """Return images with intensities 1 - x, dark on light in place of light on dark."""
    return 1 - images


def faded(images: np.ndarray, contrast: float) -> np.ndarray:
    """Return images with intensities 1 - c + c x: black becomes grey, white stays."""
    return (1 - contrast) + contrast * images


def rotated(images: np.ndarray, quarter_turns: int) -> np.ndarray:
    """Return images turned anticlockwise by 90 degrees, several times; they must be square."""
    return np.ascontiguousarray(np.rot90(images, quarter_turns, axes=(-2, -1)))
