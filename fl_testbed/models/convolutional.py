"""Small convolutional networks for images of any size from 8 × 8."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from fl_testbed.models.inputs import Normalise


def lenet(input_shape: Sequence[int], n_classes: int) -> nn.Sequential:
    """Return LeNet-5 with ReLU and max pooling: 6 and 16 filters of 5 × 5, then 120 and 84 units.

    The first layer pads by 2, so that 28 × 28 images give the paper's 16 × 5 × 5 features.

    References:
        LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998.
    """
    channels = input_shape[0]
    features = nn.Sequential(
        Normalise(),
        nn.Conv2d(channels, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, padding=0 if min(input_shape[1:]) >= 16 else 2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )
    return nn.Sequential(
        *features,
        nn.Linear(_n_features(features, input_shape), 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, n_classes),
    )


def cnn(
    input_shape: Sequence[int],
    n_classes: int,
    filters: Sequence[int],
    hidden: int,
    pooling: Literal["each", "last"] = "each",
) -> nn.Sequential:
    """Return 3 × 3 convolutions with ReLU and 2 × 2 max pooling, and a hidden layer.

    Args:
        input_shape: (channels, height, width).
        n_classes: Number of outputs.
        filters: Number of filters of each convolution, such as [32, 64].
        hidden: Units of the layer between the features and the output.
        pooling: ``each``: after each convolution, which is padded to keep the image's size;
            ``last``: only after the last, without padding. [32, 64] with ``last`` and 128 units is
            PyTorch's MNIST example, which many papers use (without its dropout): 9,216 features
            of 28 × 28 images.

    Raises:
        ValueError: If pooling leaves nothing of the image.
    """
    channels, height, width = input_shape
    each = pooling == "each"
    smallest = 2 ** len(filters) if each else 2 * len(filters) + 2
    if min(height, width) < smallest:
        raise ValueError(
            f"{len(filters)} layers of a cnn leave nothing of {height} × {width} images: "
            "give model.filters fewer entries"
        )
    layers: list[nn.Module] = [Normalise()]
    for before, after in pairwise([channels, *filters]):
        layers += [nn.Conv2d(before, after, 3, padding=int(each)), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if each else []
    layers += [] if each else [nn.MaxPool2d(2)]
    features = nn.Sequential(*layers, nn.Flatten())
    return nn.Sequential(
        *features,
        nn.Linear(_n_features(features, input_shape), hidden),
        nn.ReLU(),
        nn.Linear(hidden, n_classes),
    )


@torch.no_grad()
def _n_features(features: nn.Sequential, input_shape: Sequence[int]) -> int:
    return features(torch.zeros(1, *input_shape)).shape[1]


GROUPS = 8  # of GroupNorm; 1 where it does not divide the channels


def resnet18(input_shape: Sequence[int], n_classes: int, width: int = 64) -> nn.Sequential:
    """Return ResNet-18 for small images: :func:`resnet` with two plain blocks per stage."""
    return resnet(input_shape, n_classes, width, (2, 2, 2, 2), _Residual)


def resnet50(input_shape: Sequence[int], n_classes: int, width: int = 64) -> nn.Sequential:
    """Return ResNet-50 for small images: :func:`resnet` with 3, 4, 6 and 3 bottlenecks."""
    return resnet(input_shape, n_classes, width, (3, 4, 6, 3), _Bottleneck)


def resnet(
    input_shape: Sequence[int],
    n_classes: int,
    width: int,
    blocks: Sequence[int],
    block: "type[_Residual | _Bottleneck]",
) -> nn.Sequential:
    """Return a residual network for small images, with GroupNorm in place of BatchNorm.

    GroupNorm keeps no statistics of the data: BatchNorm's would be averaged over clients whose
    data differ, and would leak into what a defence measures. The first layer is 3 × 3 without
    stride or pooling, as usual for 32 × 32 images.

    Args:
        input_shape: (channels, height, width).
        n_classes: Number of outputs.
        width: Filters of the first stage, 64 in the paper; the others have 2, 4 and 8 times that.
        blocks: How many blocks each stage has; every stage but the first halves the image.
        block: The kind of block.

    References:
        He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
        Hsieh et al., The Non-IID Data Quagmire of Decentralized Machine Learning, ICML 2020.
    """
    layers: list[nn.Module] = [
        Normalise(),
        nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False),
        _norm(width),
        nn.ReLU(),
    ]
    before = width
    for stage, n_blocks in enumerate(blocks):
        for place in range(n_blocks):
            stride = 2 if stage > 0 and place == 0 else 1
            layers.append(block(before, width * 2**stage, stride))
            before = width * 2**stage * block.expansion
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, n_classes)
    )


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS if channels % GROUPS == 0 else 1, channels)


class _Residual(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, padding=1, bias=False),
            _norm(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            _norm(width),
        )
        self.shortcut = _shortcut(before, width, stride)

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.body(images) + self.shortcut(images))


class _Bottleneck(nn.Module):
    """A 3 × 3 convolution between two of 1 × 1, the second of which widens, beside a shortcut."""

    expansion = 4

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = width * self.expansion
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 1, bias=False),
            _norm(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            _norm(width),
            nn.ReLU(),
            nn.Conv2d(width, after, 1, bias=False),
            _norm(after),
        )
        self.shortcut = _shortcut(before, after, stride)

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.body(images) + self.shortcut(images))


def _shortcut(before: int, after: int, stride: int) -> nn.Sequential:
    if stride == 1 and before == after:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), _norm(after))
