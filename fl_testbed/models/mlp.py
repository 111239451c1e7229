"""Multi-layer perceptron."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn


class Normalise(nn.Module):
    """Maps images from [0, 1] to [-1, 1].

    The model does it, so that groups, triggers and attacks all speak of images in [0, 1]. It
    matters: with inputs in [0, 1] an inverted minority is hardly learnt at all.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return (x - 0.5) / 0.5."""
        return images * 2 - 1


def mlp(input_shape: Sequence[int], n_classes: int, hidden: Sequence[int]) -> nn.Sequential:
    """Return ReLU layers of the given widths; no hidden layer is logistic regression."""
    sizes = [prod(input_shape), *hidden]
    layers: list[nn.Module] = [Normalise(), nn.Flatten()]
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], n_classes))
