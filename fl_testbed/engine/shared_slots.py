"""Replies of workers on the driver's node, passed through memory that both sides have mapped.

Ray's object store costs every message about 2 ms of CPU time, whatever its size; a slot costs only
the copy. The memory is a file outside any folder (memfd_create), which is gone when the last
process that holds it ends, even if that is killed.
"""

import mmap
import os
import pickle
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple
from uuid import uuid4
from weakref import finalize

import numpy as np
from flwr.app import RecordDict
from ray import cloudpickle

from fl_testbed.engine.client_work import Outcome

SLOT_BYTES = 64 * 2**20  # of address space: only what is written takes memory
N_SLOTS = 4  # per worker: two for chunks in flight, two that the driver still reads
SMALLEST = 4096  # bytes; smaller arrays are not worth a place of their own
ALIGNED = 64  # bytes, as vector instructions like them


class Slot(NamedTuple):
    """Where one worker may put the replies of one chunk."""

    node: str
    """Ray's id of the node that has the memory."""
    pid: int
    """Id of the driver process."""
    descriptor: int
    """File descriptor in that process."""
    name: str
    """Unique name of the memory file."""
    number: int

    @property
    def begin(self) -> int:
        """Where the slot begins, in bytes."""
        return self.number * SLOT_BYTES


class Packed(NamedTuple):
    """The rest of a reply's content whose arrays are in a slot."""

    pickled: bytes
    places: tuple[tuple[int, int], ...]
    """Begin and size of the arrays in the slot, in bytes, in the order of the pickle."""


class Replies(NamedTuple):
    """The outcomes of a chunk as they travel."""

    outcomes: list[Outcome]
    packed: list[Packed]
    """The outcomes' contents; empty where the outcomes still hold them."""


class SharedSlots:
    """The driver's side: slots that one worker writes and the driver reads.

    A slot is lent with a chunk, and is free again once nothing refers to an array in it. Workers do
    not share slots: one that has been given up may write into its own as long as it lives.

    Args:
        node: Ray's id of this node.

    Raises:
        AttributeError: If the system has no such memory.
        OSError: If the system refuses to provide it.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._name = f"fl-testbed-{uuid4().hex}"
        self._descriptor = os.memfd_create(self._name)
        finalize(self, os.close, self._descriptor)
        os.ftruncate(self._descriptor, N_SLOTS * SLOT_BYTES)
        self._memory = mmap.mmap(self._descriptor, 0, prot=mmap.PROT_READ)
        self._free = list(range(N_SLOTS))

    def lend(self) -> Slot | None:
        """Return the slot that was freed last, as its memory is allocated already; None if all are
        lent."""
        if not self._free:
            return None
        return Slot(self._node, os.getpid(), self._descriptor, self._name, self._free.pop())

    def read(self, replies: Replies, slot: Slot) -> list[Outcome]:
        """Return outcomes whose arrays are read-only views of the slot."""
        memory = np.frombuffer(self._memory, np.uint8, SLOT_BYTES, slot.begin)
        finalize(memory, self._free.append, slot.number)  # every view refers to it
        if not replies.packed:
            return replies.outcomes
        outcomes = []
        for outcome, packed in zip(replies.outcomes, replies.packed, strict=True):
            arrays = [memory[begin : begin + size] for begin, size in packed.places]
            content = pickle.loads(packed.pickled, buffers=arrays)
            outcomes.append(outcome._replace(content=content))
        return outcomes


class SlotWriter:
    """A worker's side.

    Args:
        node: Ray's id of this node.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._name = ""
        self._memory: memoryview | None = None

    def put(self, outcomes: Iterable[Outcome], slot: Slot | None) -> Replies:
        """Put contents into the slot one by one; where there is none within reach, leave them to
        Ray's store."""
        memory = None if slot is None else self._mapped(slot)
        if slot is None or memory is None:
            return Replies(list(outcomes), [])
        memory = memory[slot.begin : slot.begin + SLOT_BYTES]
        replies, filled = Replies([], []), 0
        for outcome in outcomes:
            # The clients' state stays out of it: as long as the driver keeps that, it would hold
            # the slot.
            packed, filled = _packed(outcome.content, memory, filled)
            replies.packed.append(packed)
            replies.outcomes.append(outcome._replace(content=None))
            del outcome  # its arrays are a second copy
        return replies

    def _mapped(self, slot: Slot) -> memoryview | None:
        if slot.name != self._name:
            self._name = slot.name
            self._memory = _mapped(slot) if slot.node == self._node else None
        return self._memory


def _packed(content: RecordDict | None, memory: memoryview, filled: int) -> tuple[Packed, int]:
    """Pickle a content, with its arrays in the memory as far as they fit.

    Returns:
        The pickle and the arrays' places, and how many bytes of the memory are filled now.
    """
    places: list[tuple[int, int]] = []

    def stays_in_pickle(buffer: pickle.PickleBuffer) -> bool:
        nonlocal filled
        values = buffer.raw()
        begin = -(-filled // ALIGNED) * ALIGNED
        end = begin + values.nbytes
        if values.nbytes < SMALLEST or end > len(memory):
            return True
        memory[begin:end] = values
        places.append((begin, values.nbytes))
        filled = end
        return False

    pickled = cloudpickle.dumps(  # pyright: ignore[reportPrivateImportUsage]
        content, protocol=5, buffer_callback=stays_in_pickle
    )
    return Packed(pickled, tuple(places)), filled


def _mapped(slot: Slot) -> memoryview | None:
    """Map the driver's memory; return None if this process cannot see it."""
    with suppress(OSError):
        file = os.open(f"/proc/{slot.pid}/fd/{slot.descriptor}", os.O_RDWR)
        try:
            if slot.name in os.readlink(f"/proc/self/fd/{file}"):  # pids differ between containers
                return memoryview(mmap.mmap(file, 0))
        finally:
            os.close(file)
    return None
