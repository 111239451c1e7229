"""Flower's named arrays as numpy views, and as one flat vector of parameters."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from math import prod
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

R = TypeVar("R", ArrayRecord, MetricRecord)


class ArrayView(Array):
    """An Array around numbers in memory, serialised only when its bytes are asked for.

    Flower's own Array holds the bytes of a .npy file. Workers and server often share memory, and
    parsing those bytes for every message would cost more than sending them.

    Args:
        values: The numbers. A tensor on a device is copied to the host only when they are read.
    """

    __qualname__ = Array.__qualname__  # the type name that Flower sends over a network
    _values: np.ndarray | torch.Tensor

    def __init__(self, values: np.ndarray | torch.Tensor) -> None:
        dtype = str(values.dtype).removeprefix("torch.")
        # Bypasses Flower's __setattr__, which watches every field that it serialises.
        self.__dict__.update(
            dtype=dtype, shape=tuple(values.shape), stype="numpy.ndarray", _values=values
        )

    @property
    def data(self) -> bytes:  # type: ignore[override]  # a field in the base class
        """The bytes of the .npy file."""
        return Array.from_numpy_ndarray(values_of(self)).data

    def numpy(self) -> np.ndarray:
        """Return a copy, as Flower's own Array does, since the caller may write to it."""
        return np.array(values_of(self))

    def __reduce__(self) -> tuple[Callable[..., Array], tuple[np.ndarray]]:
        return view_of, (values_of(self),)


def on_host(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return values as a numpy array, copied to the host if they are on a device."""
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()


def values_of(array: Array) -> np.ndarray:
    """Return an array's numbers, which callers must not change: those of a view are not copied."""
    return on_host(array._values) if isinstance(array, ArrayView) else array.numpy()


def view_of(values: np.ndarray) -> ArrayView:
    """Return an Array around a numpy array: pickles name this, as the class has Flower's name."""
    return ArrayView(values)


def view(array: Array) -> Array:
    """Return an array as a view, without a copy; unchanged if its bytes are no plain .npy file."""
    if isinstance(array, ArrayView) or array.stype != "numpy.ndarray":
        return array
    if not array.dtype.lstrip("<>=|").isalnum():
        return array  # numpy would parse it as an expression
    try:
        dtype = np.dtype(array.dtype)
    except TypeError:
        return array  # reading it will raise an error that says what is wrong
    offset = len(array.data) - prod(array.shape) * dtype.itemsize
    header = array.data[: max(offset, 0)]
    if not header.startswith(b"\x93NUMPY\x01\x00"):
        return array
    if offset != 10 + int.from_bytes(header[8:10], "little") or dtype.hasobject:
        return array
    shape, fields = tuple(array.shape), header[10:].decode("latin1").rstrip()
    for by_columns in (False, True):
        expected = f"{{'descr': '{dtype.str}', 'fortran_order': {by_columns}, 'shape': {shape}, }}"
        if fields == expected:
            values = np.frombuffer(array.data, dtype, offset=offset)
            return ArrayView(values.reshape(shape[::-1]).T if by_columns else values.reshape(shape))
    return array


def with_views(content: RecordDict) -> RecordDict:
    """Return a record dict whose arrays are views; other records are the same objects."""

    def viewed(record: ArrayRecord) -> ArrayRecord:
        if isinstance(record, FlatRecord) or all(isinstance(a, ArrayView) for a in record.values()):
            return record
        views = ArrayRecord()  # filled below, since its constructor would copy arrays
        for name, array in record.items():
            views[name] = view(array)
        return views

    return _with_arrays(content, viewed)


def without_views(content: RecordDict) -> RecordDict:
    """Return a record dict of Flower's own arrays, which give every reader a fresh copy of the
    numbers; other records are the same objects."""
    return _with_arrays(content, plain)


def plain(record: ArrayRecord) -> ArrayRecord:
    """Return a record of Flower's own arrays, which hold copies of the numbers."""
    return ArrayRecord({name: Array(values_of(array)) for name, array in record.items()})


def _with_arrays(content: RecordDict, changed: Callable[[ArrayRecord], ArrayRecord]) -> RecordDict:
    records = content.items()
    return RecordDict({k: changed(r) if isinstance(r, ArrayRecord) else r for k, r in records})


class UnusableReplyError(ValueError):
    """A client's reply that the server cannot use; the text says why."""


def records_in(content: RecordDict, kind: type[R]) -> dict[str, R]:
    """Return a content's records of one kind by name.

    Flower's own properties for this (``array_records``) create reference cycles that keep the
    content, arrays included, until garbage is collected.
    """
    return {name: record for name, record in content.items() if isinstance(record, kind)}


def only_arrays(content: RecordDict) -> ArrayRecord:
    """Return a reply's arrays.

    Raises:
        UnusableReplyError: If it has none, or several records of them.
    """
    arrays = list(records_in(content, ArrayRecord).values())
    if len(arrays) != 1:
        raise UnusableReplyError(f"needs one ArrayRecord, got {len(arrays)}")
    return arrays[0]


def batch_norm_statistics(names: Iterable[str]) -> frozenset[str]:
    """Return those of a PyTorch model's array names under which BatchNorm keeps statistics."""
    kept = ("running_mean", "running_var", "num_batches_tracked")
    return frozenset(name for name in names if name.rpartition(".")[2] in kept)


class Piece(NamedTuple):
    """One array in the flat vector."""

    shape: tuple[int, ...]
    place: slice


@dataclass(frozen=True)
class Layout:
    """Where each floating-point array of a record stands in the flat vector.

    Integer arrays (such as a batch counter) are not parameters: the global model's are kept.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    buffers: frozenset[str] = frozenset()
    """Names of arrays that training does not move along a gradient, such as BatchNorm's running
    means: they stand last in the vector."""

    @classmethod
    def of(
        cls, record: Mapping[str, Array | torch.Tensor], buffers: frozenset[str] = frozenset()
    ) -> "Layout":
        """Read the layout off a record or a model's state, some of whose arrays may be buffers."""
        return cls(
            names=tuple(record),
            shapes=tuple(tuple(array.shape) for array in record.values()),
            dtypes=tuple(str(array.dtype).removeprefix("torch.") for array in record.values()),
            buffers=buffers,
        )

    @property
    def is_flat(self) -> bool:
        """Whether the vector is the whole record, in order: all float32, without buffers."""
        return set(self.dtypes) <= {"float32"} and not self.buffers

    @cached_property
    def size(self) -> int:
        """Length of the vector."""
        return sum(prod(shape) for shape, _ in self.pieces.values())

    @property
    def n_parameters(self) -> int:
        """Number of parameters d: the length of the vector before the buffers."""
        return max((place.stop for place in self.layers.values()), default=0)

    @property
    def layers(self) -> dict[str, slice]:
        """Where each array of parameters stands in the vector, by its name."""
        pieces = self.pieces.items()
        return {name: place for name, (_, place) in pieces if name not in self.buffers}

    @cached_property
    def pieces(self) -> dict[str, Piece]:
        """The arrays in the vector, by their names."""
        arrays = zip(self.names, self.shapes, self.dtypes, strict=True)
        found, start = {}, 0
        for name, shape, dtype in sorted(arrays, key=lambda array: array[0] in self.buffers):
            if dtype.startswith(("float", "bfloat")):
                stop = start + prod(shape)
                found[name] = Piece(shape, slice(start, stop))
                start = stop
        return found

    def __getstate__(self) -> dict[str, Any]:
        # A layout goes with every reply: only its fields are sent, not what is cached from them.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def flat_of(self, record: ArrayRecord) -> np.ndarray | torch.Tensor | None:
        """Return the vector that holds a record's arrays; None if it has none of this layout."""
        if not isinstance(record, FlatRecord):
            return None
        own, flat = record._flat  # both None if an array has been replaced
        return flat if own == self else None

    def parts(self, record: ArrayRecord) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield, part by part, the place in the vector and the record's values for it, flat.

        Raises:
            UnusableReplyError: If the record's keys, shapes or types are not this layout's.
        """
        flat = self.flat_of(record)
        if flat is not None:
            yield slice(self.size), on_host(flat)
            return
        if set(record.keys()) != set(self.names):
            missing = sorted(set(self.names) - set(record.keys()))
            extra = sorted(set(record.keys()) - set(self.names))
            raise UnusableReplyError(
                "arrays do not match the model's"
                + (f", missing {', '.join(missing)}" if missing else "")
                + (f", unknown {', '.join(extra)}" if extra else "")
            )
        for name, (shape, place) in self.pieces.items():
            array = view(record[name])
            if not isinstance(array, ArrayView):  # numpy's reader trips over forged files
                raise UnusableReplyError(f"array {name} is not the .npy file that it claims to be")
            values = values_of(array)
            if values.shape != shape:
                raise UnusableReplyError(
                    f"array {name} has shape {list(values.shape)}, needs {list(shape)}"
                )
            if values.dtype.kind not in "iuf":
                raise UnusableReplyError(f"array {name} holds {values.dtype}, not real numbers")
            yield place, values.reshape(-1)

    @np.errstate(over="ignore", invalid="ignore")
    def flattened(self, record: ArrayRecord, out: np.ndarray | None = None) -> np.ndarray:
        """Return a copy of a record's parameters, shape (d,), float32, written into ``out`` if it
        is given. Values beyond float32 become infinite.

        Raises:
            UnusableReplyError: If the record's keys, shapes or types are not this layout's.
        """
        flat = np.empty(self.size, dtype=np.float32) if out is None else out
        for part, values in self.parts(record):
            np.copyto(flat[part], values, casting="same_kind")
        return flat

    def read_flat(self, flat: np.ndarray | torch.Tensor, others: ArrayRecord) -> ArrayRecord:
        """Return a record with parameters from ``flat`` and integer arrays from ``others``.

        Args:
            flat: Shape (d,). A tensor on a device stays there if :attr:`is_flat`, else goes to the
                host.
            others: A record of this layout.
        """
        if isinstance(flat, torch.Tensor):
            if self.is_flat:
                return flat_record(self, flat.float())
            flat = flat.cpu().numpy()
        if self.is_flat:
            return FlatRecord(self, flat.astype(np.float32, copy=False))
        record = others.copy()
        for name, (shape, place) in self.pieces.items():
            dtype = others[name].dtype
            record[name] = ArrayView(flat[place].reshape(shape).astype(dtype, copy=False))
        return record


def in_types_of(like: ArrayRecord, arrays: ArrayRecord) -> ArrayRecord:
    """Return a model cast to the types of another: some of Flower's strategies (FedAdam) return
    float64."""
    if all(array.dtype == like[name].dtype for name, array in arrays.items()):
        return arrays
    return ArrayRecord(
        {name: ArrayView(values_of(a).astype(like[name].dtype)) for name, a in arrays.items()}
    )


class FlatRecord(ArrayRecord):
    """An ArrayRecord of float32 arrays that lie one after the other in one vector.

    It travels as one buffer, and the server reads it with one copy.

    Args:
        layout: Names and shapes of the arrays.
        flat: Shape (d,), float32; a tensor where it is on a device.
    """

    __qualname__ = ArrayRecord.__qualname__
    _flat: tuple[Layout | None, Any]

    def __init__(self, layout: Layout, flat: np.ndarray | torch.Tensor) -> None:
        assert flat.shape == (layout.size,)
        assert flat.dtype in (np.float32, torch.float32)
        super().__init__()
        for name, (shape, place) in layout.pieces.items():
            super().__setitem__(name, ArrayView(flat[place].reshape(shape)))
        self._flat = layout, flat

    def __setitem__(self, key: str, value: Array) -> None:
        self._flat = None, None
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._flat = None, None
        super().__delitem__(key)

    def copy(self) -> "FlatRecord":
        """Return a shallow copy."""
        copied = super().copy()
        copied._flat = self._flat
        return copied

    def __reduce__(self) -> tuple[Callable[..., ArrayRecord], tuple[Any, ...]]:
        layout, flat = self._flat
        if layout is None:
            return record_of, ({name: values_of(array) for name, array in self.items()},)
        return flat_record, (layout, on_host(flat))


def flat_record(layout: Layout, flat: np.ndarray | torch.Tensor) -> FlatRecord:
    """Return a record of the arrays that lie in a vector, shape (d,), float32: no copy is made."""
    if isinstance(flat, torch.Tensor) and flat.device.type == "cpu":
        flat = flat.numpy()
    return FlatRecord(layout, flat)


def packed(state: Mapping[str, torch.Tensor], layout: Layout) -> ArrayRecord:
    """Return a copy of a model's state as a record in the layout's order; on its device if flat."""
    if not layout.is_flat:
        return record_of({name: state[name].cpu().numpy().copy() for name in layout.names})
    flat = torch.empty(layout.size, device=next(iter(state.values())).device)
    for name, (shape, place) in layout.pieces.items():
        flat[place].view(shape).copy_(state[name])
    return flat_record(layout, flat)


def record_of(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Return a record of views on named arrays."""
    record = ArrayRecord()
    for name, values in arrays.items():
        record[name] = ArrayView(values)
    return record


def state_dict_of(record: ArrayRecord) -> dict[str, torch.Tensor]:
    """Return a record as a model's state dict: copies, so that training leaves the record alone."""
    return {name: torch.tensor(values_of(array)) for name, array in record.items()}
