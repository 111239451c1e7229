"""Normalisation, the first layer of models of images."""

from torch import Tensor, nn


class Normalise(nn.Module):
    """Maps images from [0, 1] to [-1, 1].

    It is part of the model so that groups, triggers and attacks all work on images in [0, 1]. It
    matters: with inputs in [0, 1] an inverted minority is hardly learnt at all.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return (x - 0.5) / 0.5."""
        return (images * 2).sub_(1)
