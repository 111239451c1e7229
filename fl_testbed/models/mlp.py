"""Multi-layer perceptron, for images and for rows of features."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn

from fl_testbed.models.inputs import Normalise


def mlp(
    input_shape: Sequence[int], n_classes: int, hidden: Sequence[int], dropout: float = 0.0
) -> nn.Sequential:
    """Return ReLU layers of the given widths; no hidden layer is logistic regression.

    Images, which have three dimensions, are normalised and flattened; features come standardised.
    While it trains, each hidden unit is left out of an example with probability ``dropout``.
    """
    sizes = [prod(input_shape), *hidden]
    layers: list[nn.Module] = [Normalise(), nn.Flatten()] if len(input_shape) == 3 else []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(sizes[-1], n_classes))
