"""Tensor types for annotations: jaxtyping's where it is installed, plain tensors elsewhere."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
else:
    try:
        from jaxtyping import Bool, Float, Int
    except ModuleNotFoundError:  # a bare machine with torch and numpy alone

        class _Unshaped:
            def __class_getitem__(cls, item):
                return item[0]

        Bool = Float = Int = _Unshaped

CPU = torch.device("cpu")  # the device that is everywhere

__all__ = ["CPU", "Bool", "Float", "Int", "Tensor"]
