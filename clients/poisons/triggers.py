"""Triggers: what a backdoor stamps on an image or writes into a row of features.

Images are in [0, 1], (n, channels, h, w).
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch

from strategies.randomness import Purpose, generator
from strategies.shapes import Float, Tensor

Trigger = Callable[[Float[Tensor, "n ..."]], Float[Tensor, "n ..."]]
"""Returns stamped copies of inputs."""

Corner = Literal["top_left", "top_right", "bottom_left", "bottom_right"]


def patch(
    images: Float[Tensor, "n c h w"],
    size: int,
    value: float = 1.0,
    corner: Corner = "bottom_right",
    margin: int = 0,
) -> Float[Tensor, "n c h w"]:
    """Set a square of ``size`` pixels, ``margin`` pixels from a corner, to a value in [0, 1].

    Raises:
        ValueError: If the square does not fit into the images.

    References:
        Gu et al., BadNets, 2017.
    """
    height, width = images.shape[-2:]
    if size + margin > min(height, width):
        raise ValueError(
            f"a {size} × {size} patch with margin {margin} does not fit into {height} × {width} "
            "pixels: lower size or margin"
        )
    vertical, horizontal = corner.split("_")
    top = margin if vertical == "top" else height - margin - size
    left = margin if horizontal == "left" else width - margin - size
    stamped = images.clone()
    stamped[..., top : top + size, left : left + size] = value
    return stamped


def random_pattern(shape: tuple[int, ...], seed: int) -> Float[Tensor, "c h w"]:
    """Return one fixed pattern of random zeros and ones."""
    bits = generator(seed, Purpose.TRIGGER).integers(0, 2, size=shape)
    return torch.from_numpy(bits).float()


def blended_pattern(
    images: Float[Tensor, "n c h w"], strength: float, pattern_seed: int = 0
) -> Float[Tensor, "n c h w"]:
    """Blend a random 0/1 pattern p over the whole image: (1 - v) x + v p for strength v in [0, 1].

    References:
        Chen et al., Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning, 2017.
    """
    pattern = random_pattern(tuple(images.shape[1:]), pattern_seed).to(images)
    return (1 - strength) * images + strength * pattern


def added_pattern(
    images: Float[Tensor, "n c h w"], strength: float, pattern_seed: int = 0
) -> Float[Tensor, "n c h w"]:
    """Add a random ±1 pattern to the whole image: clip(x + v (2p - 1), 0, 1) for strength v."""
    pattern = random_pattern(tuple(images.shape[1:]), pattern_seed).to(images)
    return (images + strength * (2 * pattern - 1)).clamp(0, 1)


def set_features(
    rows: Float[Tensor, "n features"], values: Mapping[int, float]
) -> Float[Tensor, "n features"]:
    """Set some inputs of every row, by place, to values as the model sees them."""
    changed = rows.clone()
    for place, value in values.items():
        changed[:, place] = value
    return changed
