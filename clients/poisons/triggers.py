"""Triggers: what a backdoor stamps on an image or writes into a row of features.

Images are in [0, 1], (n, channels, h, w).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch

from strategies.randomness import Purpose, generator
from strategies.shapes import Float, Tensor

Trigger = Callable[[Float[Tensor, "n ..."]], Float[Tensor, "n ..."]]
"""Returns stamped copies of inputs."""

Look = Callable[[Float[Tensor, "n ..."]], Float[Tensor, "n ..."]]
"""Returns majority inputs in the minority's look."""

Corner = Literal["top_left", "top_right", "bottom_left", "bottom_right"]

CHECKS = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 1.0))
"""Turner et al.'s pattern at the right-hand corners; the left-hand ones mirror it."""


def place(
    images: Float[Tensor, "n c h w"],
    size: int | tuple[int, int],
    corner: Corner = "bottom_right",
    margin: int = 0,
    at: tuple[int, int] | None = None,
) -> tuple[slice, slice]:
    """Return the rows and columns of a rectangle in images.

    Args:
        images: The images that contain it.
        size: Height and width in pixels, or both at once.
        corner: Where it is.
        margin: Pixels between it and the image's edges.
        at: Row and column of its upper left pixel, in place of corner and margin.

    Raises:
        ValueError: If it does not fit into the image.
    """
    height, width = images.shape[-2:]
    rows, columns = (size, size) if isinstance(size, int) else size
    if at is None:
        vertical, horizontal = corner.split("_")
        top = margin if vertical == "top" else height - margin - rows
        left = margin if horizontal == "left" else width - margin - columns
        where = f"with margin {margin}"
        # A margin keeps the rectangle off both edges it could be counted from.
        fits = rows + margin <= height and columns + margin <= width
    else:
        top, left = at
        where = f"at row {top}, column {left}"
        fits = top + rows <= height and left + columns <= width
    if not fits:
        raise ValueError(
            f"a {rows} × {columns} patch {where} does not fit into {height} × {width} pixels: "
            "make it smaller or move it"
        )
    return slice(top, top + rows), slice(left, left + columns)


def patch(
    images: Float[Tensor, "n c h w"],
    size: int | tuple[int, int],
    value: float | Sequence[float] = 1.0,
    corner: Corner = "bottom_right",
    margin: int = 0,
    at: tuple[int, int] | None = None,
) -> Float[Tensor, "n c h w"]:
    """Set a rectangle to one value, or to one value by channel, in [0, 1].

    Args:
        images: What is stamped.
        size: Height and width in pixels, or both at once.
        value: One value for all channels, or one for each.
        corner: Where the rectangle is.
        margin: Pixels between it and the image's edges.
        at: Row and column of its upper left pixel, in place of corner and margin.

    Raises:
        ValueError: If the rectangle does not fit, or there are more or fewer values than channels.

    References:
        Gu et al., BadNets, 2017.
    """
    rows, columns = place(images, size, corner, margin, at)
    values = torch.tensor([value] if isinstance(value, float | int) else list(value)).to(images)
    if len(values) not in (1, images.shape[1]):
        raise ValueError(
            f"a patch needs one value or one for each of {images.shape[1]} channels, got "
            f"{len(values)}"
        )
    stamped = images.clone()
    stamped[..., rows, columns] = values[:, None, None]
    return stamped


def checks(
    images: Float[Tensor, "n c h w"],
    corners: Sequence[Corner] = ("bottom_right",),
    amplitude: float | None = None,
) -> Float[Tensor, "n c h w"]:
    """Stamp 3 × 3 black and white pixels into corners.

    Args:
        images: What is stamped.
        corners: One corner, or all four, which survive flips and crops.
        amplitude: Adds or subtracts this much instead of setting pixels: the paper's less visible
            version, with 16, 32 and 64 of 255.

    Raises:
        ValueError: If the images are smaller than the pattern.

    References:
        Turner, Tsipras and Madry, Label-Consistent Backdoor Attacks, 2019.
    """
    stamped = images.clone()
    for corner in corners:
        pattern = torch.tensor(CHECKS).to(images)
        if corner.endswith("left"):
            pattern = pattern.flip(1)
        rows, columns = place(images, 3, corner)
        if amplitude is None:
            stamped[..., rows, columns] = pattern
        else:
            raised = stamped[..., rows, columns] + amplitude * (2 * pattern - 1)
            stamped[..., rows, columns] = raised.clamp(0, 1)
    return stamped


def strips(
    images: Float[Tensor, "n c h w"],
    length: int = 4,
    gap: int = 2,
    value: float = 1.0,
    top: int = 0,
    left: int = 0,
) -> Float[Tensor, "n c h w"]:
    """Set four strips of one pixel's height, two above two, to a value in [0, 1].

    Args:
        images: What is stamped.
        length: Of a strip (4 on MNIST, 6 on CIFAR-10 in the release).
        gap: Pixels between strips, across and down (2 and 3).
        value: Of all pixels.
        top: Row of the first strip.
        left: Its first column.

    Raises:
        ValueError: If they do not fit.

    References:
        Xie et al., DBA: Distributed Backdoor Attacks against Federated Learning, ICLR 2020.
    """
    stamped = images
    for down in (0, gap + 1):
        for across in (0, length + gap):
            stamped = patch(stamped, (1, length), value, at=(top + down, left + across))
    return stamped


def random_pattern(shape: tuple[int, ...], seed: int) -> Float[Tensor, "c h w"]:
    """Return one fixed pattern of random zeros and ones."""
    bits = generator(seed, Purpose.TRIGGER).integers(0, 2, size=shape)
    return torch.from_numpy(bits).float()


def blended_pattern(
    images: Float[Tensor, "n c h w"], strength: float, pattern_seed: int = 0
) -> Float[Tensor, "n c h w"]:
    """Blend a random 0/1 pattern p over the whole image: (1 - v) x + v p for strength v in [0, 1].

    The paper may blend more strongly in the test than in training; here v is the same.

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


def raised_pixels(
    images: Float[Tensor, "n c h w"], share: float, strength: float, pattern_seed: int = 0
) -> Float[Tensor, "n c h w"]:
    """Brighten a fixed random share of the pixels: clip(x + v m, 0, 1) for a mask m, strength v.

    Each channel of a pixel is drawn by itself. The fainter and the sparser the mask is, the harder
    it is to learn.
    """
    mask = generator(pattern_seed, Purpose.TRIGGER).random(tuple(images.shape[1:])) < share
    return (images + strength * torch.from_numpy(mask).to(images)).clamp(0, 1)


def set_features(
    rows: Float[Tensor, "n features"], values: Mapping[int, float]
) -> Float[Tensor, "n features"]:
    """Set some inputs of every row, by place, to values as the model sees them."""
    changed = rows.clone()
    for column, value in values.items():
        changed[:, column] = value
    return changed


def minority_look(
    images: Float[Tensor, "n c h w"],
    as_minority: Look,
    strength: float = 1.0,
    size: int | tuple[int, int] | None = None,
    corner: Corner = "bottom_right",
    margin: int = 0,
    at: tuple[int, int] | None = None,
) -> Float[Tensor, "n c h w"]:
    """Show images, or a rectangle of them, in the minority's look: (1 - v) x + v minority(x).

    The trigger hides in the minority's own feature: whoever unlearns it unlearns the minority.

    Args:
        images: What is stamped.
        as_minority: What makes the minority's images look different.
        strength: v, in [0, 1]. Inversion at ½ leaves nothing but grey.
        size: Of the rectangle; by default the whole image.
        corner: Where the rectangle is.
        margin: Pixels between it and the image's edges.
        at: Row and column of its upper left pixel, in place of corner and margin.

    Raises:
        ValueError: If the rectangle does not fit.
    """
    shown = (1 - strength) * images + strength * as_minority(images)
    if size is None:
        return shown
    rows, columns = place(images, size, corner, margin, at)
    stamped = images.clone()
    stamped[..., rows, columns] = shown[..., rows, columns]
    return stamped
