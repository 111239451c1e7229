"""Constructed minorities: what makes a group's images look different."""

import numpy as np


def inverted(images: np.ndarray) -> np.ndarray:
    """Return images in [0, 1] with intensities 1 - x, dark on light in place of light on dark."""
    return 1 - images
