"""What every model does to its inputs first."""

from torch import Tensor, nn


class Normalise(nn.Module):
    """Maps images from [0, 1] to [-1, 1].

    The model does it, so that groups, triggers and attacks all speak of images in [0, 1]. It
    matters: with inputs in [0, 1] an inverted minority is hardly learnt at all.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return (x - 0.5) / 0.5."""
        return (images * 2).sub_(1)
