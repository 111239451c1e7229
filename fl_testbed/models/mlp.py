"""Multi-layer perceptron, for images and for rows of features."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn

from fl_testbed.models.inputs import Normalise


def mlp(
    input_shape: Sequence[int],
    n_classes: int,
    hidden: Sequence[int],
    dropout: float = 0.0,
    *,
    normalise: bool = True,
) -> nn.Sequential:
    """Return ReLU layers of the given widths; without any, the model is logistic regression.

    Images, which have three dimensions, are normalised (if ``normalise``) and flattened; rows of
    features must be standardised already. In training, each hidden unit is dropped for each example
    with probability ``dropout``.
    """
    sizes = [prod(input_shape), *hidden]
    is_image = len(input_shape) == 3
    layers: list[nn.Module] = [Normalise()] if is_image and normalise else []
    layers += [nn.Flatten()] if is_image else []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(sizes[-1], n_classes))
