"""Convolutions of many models at once, as products of matrices."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from strategies.shapes import Float, Tensor

Pair = int | Sequence[int]


class ConvolutionsAsProducts(TorchFunctionMode):
    """While this mode is on, plain convolutions of images are computed as products of matrices.

    Under ``vmap`` one convolution per model becomes one with a group for each model. On a CPU that
    is as fast as any. On a GPU each group is a small direct convolution, and in the backward pass
    cuDNN is known to be slow at many of them; a product per model is one batched product, which
    any GPU is good at. It costs memory: an input is repeated for every weight that meets it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.conv2d:
            return convolution(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def convolution(
    x: Float[Tensor, "*batch channels height width"],
    weight: Float[Tensor, "filters channels high wide"],
    bias: Float[Tensor, " filters"] | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Float[Tensor, "*batch filters rows columns"]:
    """Return what ``torch.nn.functional.conv2d`` returns for the same parameters.

    A convolution with dilation, groups or a named padding is left to torch.
    """
    is_plain = x.dim() == 4 and _pair(dilation) == (1, 1) and groups == 1
    if isinstance(padding, str) or not is_plain:
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    (down, across), (above, beside) = _pair(stride), _pair(padding)
    if above or beside:
        x = F.pad(x, (beside, beside, above, above))
    # Channels come last, as in the result: the next layer copies runs of neighbours.
    windows = _Windows.apply(x.permute(0, 2, 3, 1), *weight.shape[2:], down, across)
    n, rows, columns = windows.shape[:3]
    seen = windows.view(n * rows * columns, -1)
    result = F.linear(seen, weight.permute(0, 2, 3, 1).flatten(1), bias)
    return result.view(n, rows, columns, -1).permute(0, 3, 1, 2)


class _Windows(torch.autograd.Function):
    """Cuts images into windows, shape (…, rows, columns, high, wide, channels).

    The backward pass adds up slices. Torch's own backward pass of ``unfold`` divides 64-bit
    integers twice for each number, to find the windows that hold it: more work for a GPU than all
    of these sums.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, high: int, wide: int, down: int, across: int) -> Tensor:
        windows = x.unfold(-3, high, down).unfold(-3, wide, across)
        return windows.movedim(-3, -1).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.shape, ctx.sizes = inputs[0].shape, inputs[1:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,), (high, wide, down, across) = gradients, ctx.sizes
        rows, columns = gradient.shape[-5:-3]
        *images, _, width, channels = ctx.shape
        of_rows = gradient.new_zeros(*images, rows, width, high, channels)
        for i in range(wide):
            place = slice(i, i + columns * across, across)
            of_rows[..., place, :, :].add_(gradient[..., i, :])
        result = gradient.new_zeros(ctx.shape)
        for i in range(high):
            result[..., i : i + rows * down : down, :, :].add_(of_rows[..., i, :])
        return result, None, None, None, None


def _pair(value: Pair) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return first, second
