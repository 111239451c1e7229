"""A device that is not the CPU, pretended: what a GPU would refuse is refused, with real numbers.

Tensors on it say that they are on torch's ``meta`` device and hold their numbers on the CPU. They
compute only while :class:`PretendedDevice` lasts, which refuses what mixes the two devices and
notes whatever the host would wait for.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ELSEWHERE = torch.device("meta")
aten = torch.ops.aten
# What makes the host wait for a device even though no number leaves it: shapes depend on numbers.
SHAPED_BY_NUMBERS = (aten.nonzero.default, aten.masked_select.default)
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


class Read(NamedTuple):
    """Something that the host waited for."""

    operation: str
    size: int
    """How many numbers came to the host."""


class Elsewhere(torch.Tensor):
    """A tensor on the pretended device."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Elsewhere":
        outer = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=ELSEWHERE,
        )
        outer.held = held
        return outer

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError(f"{func} where the pretended device is not: in another thread?")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, **kwargs: Any) -> str:
        return f"elsewhere, of shape {tuple(self.shape)}"


class PretendedDevice(TorchDispatchMode):
    """While this lasts, tensors can be made on :data:`ELSEWHERE`, and compute."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[Read] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        asked_device = kwargs.get("device")
        if asked_device is not None:
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)  # a driver would do that
        there = _tensors((args, kwargs), Elsewhere)
        self._check(func, args, kwargs, bool(there))
        result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        if (
            there and torch.Tag.inplace_view in func.tags
        ):  # the shape that they say is to change too
            with no_dispatch():
                func(*args, **kwargs)
        if func is aten.copy_.default:
            if there and not isinstance(args[0], Elsewhere):
                self.reads.append(Read("copy_", args[1].numel()))
            return args[0]
        if func is aten._local_scalar_dense.default:
            if there:
                self.reads.append(Read("item", 1))
            return result
        goes_there = there if asked_device is None else torch.device(asked_device) == ELSEWHERE
        if not goes_there:
            if there:
                self.reads.append(Read("to the host", there[0].numel()))
            return result
        if func is aten._to_copy.default and result is _held(args[0]):
            result = result.clone()
        known = {id(tensor.held): tensor for tensor in there}  # what works in place returns itself
        return tree_map(_wrapped(known), result)

    def _check(self, func: Any, args: tuple[Any, ...], kwargs: Any, any_there: bool) -> None:
        if not any_there or func is aten.copy_.default:
            return
        if func in SHAPED_BY_NUMBERS:
            self.reads.append(Read(str(func), 0))
        if func in INDEXING:
            if not isinstance(args[0], Elsewhere):
                raise RuntimeError(f"{func}: the index is on a device, and what it is for is not")
            masks = (index for index in _tensors(args[1], Elsewhere) if index.dtype == torch.bool)
            self.reads += [Read("mask", 0) for _ in masks]
            args = (args[0], *args[2:])  # an index may be on the host
        here = [value for value in _tensors((args, kwargs)) if not isinstance(value, Elsewhere)]
        if any(value.dim() for value in here):  # a number alone may come from anywhere
            raise RuntimeError(f"{func}: tensors are on the device and on the CPU")


def _tensors(tree: Any, kind: type = torch.Tensor) -> list[Any]:
    return [value for value in tree_leaves(tree) if isinstance(value, kind)]


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Elsewhere) else value


def _wrapped(known: dict[int, Elsewhere]) -> Callable[[Any], Any]:
    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return known[id(value)] if id(value) in known else Elsewhere(value)

    return wrapped
