"""The few things of Flower that are not its public API, in one place and tested."""

from math import prod

import numpy as np
from flwr.app import Array, ArrayRecord, Message, Metadata, RecordDict
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE_ID = -1
RUN_ID = 1


def become_server() -> None:
    """Let this process construct messages: Flower asks who is speaking."""
    TaskIdentity.task_id = 0
    TaskIdentity.run_id = RUN_ID
    TaskIdentity.node_id = SERVER_NODE_ID


def with_message_id(message: Message, message_id: str) -> Message:
    """Give an outgoing message the id that a SuperLink would give it."""
    message.metadata.__dict__["_message_id"] = message_id
    return message


def message_from(content: RecordDict, metadata: Metadata) -> Message:
    """Return a message as it arrives at a node."""
    return Message(content, metadata=metadata)  # pyright: ignore[reportCallIssue]


class ArrayView(Array):
    """An Array around a numpy array in memory, serialised only if somebody asks for its bytes.

    Flower's own keeps the bytes of a .npy file. Workers and server of this engine share memory, so
    parsing them for every message would cost more than sending them.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.dtype, self.shape, self.stype = str(values.dtype), values.shape, "numpy.ndarray"
        self.__dict__["_values"] = values

    @property
    def data(self) -> bytes:  # type: ignore[override]  # a field in the base class
        """The bytes of the .npy file."""
        return Array.from_numpy_ndarray(self.__dict__["_values"]).data

    def numpy(self) -> np.ndarray:
        """Return the array itself."""
        return self.__dict__["_values"]

    def __reduce__(self) -> tuple[type["ArrayView"], tuple[np.ndarray]]:
        return ArrayView, (self.numpy(),)


def view(array: Array) -> Array:
    """Return the same values without a copy, where the bytes are the plain .npy file they claim."""
    if isinstance(array, ArrayView) or array.stype != "numpy.ndarray":
        return array
    try:
        dtype = np.dtype(array.dtype)
    except TypeError:
        return array  # whoever reads it will say what is wrong
    offset = len(array.data) - prod(array.shape) * dtype.itemsize
    header = array.data[: max(offset, 0)]
    expected = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    if not header.startswith(b"\x93NUMPY") or expected.encode() not in header:
        return array
    return ArrayView(np.frombuffer(array.data, dtype, offset=offset).reshape(array.shape))


def with_views(content: RecordDict) -> RecordDict:
    """Return a record dict whose arrays are views; other records are the same objects."""
    result = RecordDict()
    for key, record in content.items():
        if isinstance(record, ArrayRecord):
            viewed = ArrayRecord()
            for name, array in record.items():
                viewed[name] = view(array)
            result[key] = viewed
        else:
            result[key] = record
    return result
