"""Named arrays of a model as one flat vector, and back."""

from dataclasses import dataclass
from math import prod

import numpy as np
from flwr.app import Array, ArrayRecord


class UnusableReplyError(ValueError):
    """A client's reply that the server cannot use; the text says why."""


@dataclass(frozen=True)
class Layout:
    """Where each floating-point array of a record stands in the flat vector.

    Integer arrays (a batch counter, say) are no parameters: they are kept from the global model.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    floating: tuple[bool, ...]

    @classmethod
    def of(cls, record: ArrayRecord) -> "Layout":
        """Read the layout off a record."""
        dtypes = tuple(str(array.dtype) for array in record.values())
        return cls(
            names=tuple(record.keys()),
            shapes=tuple(tuple(array.shape) for array in record.values()),
            dtypes=dtypes,
            floating=tuple(dtype.startswith(("float", "bfloat")) for dtype in dtypes),
        )

    @property
    def size(self) -> int:
        """Number of parameters d."""
        return sum(
            prod(shape) for shape, used in zip(self.shapes, self.floating, strict=True) if used
        )

    def write_flat(self, record: ArrayRecord, out: np.ndarray) -> None:
        """Copy a record's parameters into ``out``, shape (d,), float32.

        Raises:
            UnusableReplyError: If the record's keys, shapes or types are not this layout's.
        """
        if set(record.keys()) != set(self.names):
            missing = sorted(set(self.names) - set(record.keys()))
            extra = sorted(set(record.keys()) - set(self.names))
            raise UnusableReplyError(
                "arrays do not match the model's"
                + (f", missing {', '.join(missing)}" if missing else "")
                + (f", unknown {', '.join(extra)}" if extra else "")
            )
        start = 0
        for name, shape, used in zip(self.names, self.shapes, self.floating, strict=True):
            if not used:
                continue
            try:
                values = record[name].numpy()
            except (TypeError, ValueError) as fault:
                raise UnusableReplyError(f"array {name} cannot be read: {fault}") from fault
            if values.shape != shape:
                raise UnusableReplyError(
                    f"array {name} has shape {list(values.shape)}, needs {list(shape)}"
                )
            if not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
                raise UnusableReplyError(f"array {name} holds {values.dtype}, not real numbers")
            stop = start + values.size
            np.copyto(out[start:stop], values.reshape(-1), casting="same_kind")
            start = stop

    def read_flat(self, flat: np.ndarray, others: ArrayRecord) -> ArrayRecord:
        """Return a record with parameters from ``flat`` and integer arrays from ``others``."""
        record = ArrayRecord()
        start = 0
        for name, shape, dtype, used in zip(
            self.names, self.shapes, self.dtypes, self.floating, strict=True
        ):
            if not used:
                record[name] = others[name]
                continue
            stop = start + prod(shape)
            record[name] = Array(flat[start:stop].reshape(shape).astype(dtype, copy=False))
            start = stop
        return record
