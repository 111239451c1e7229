"""How much memory work takes on a device, how much is left, and what it means to run out."""

import gc
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from inspect import unwrap
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from strategies.shapes import CPU

# Other messages of torch and its libraries when memory is short: on a CPU, in cuBLAS, in cuDNN.
SHORT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    if isinstance(fault, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(fault, RuntimeError) and any(text in str(fault) for text in SHORT_OF_MEMORY)


class DeviceMemory(ABC):
    """The memory of the device that clients train on."""

    device: torch.device

    @abstractmethod
    def free(self) -> int | None:
        """Return how many bytes are still available; None if unknown."""

    @abstractmethod
    def peak_of(self, work: Callable[[], object]) -> int:
        """Do some work; return the most bytes it took at once, beyond those taken before."""

    def limited(self) -> AbstractContextManager[object]:
        """Return a context in which taking more than there is raises ``torch.OutOfMemoryError``."""
        return nullcontext()  # a device with an allocator of its own raises anyway

    def release(self) -> None:
        """Give back memory that is no longer needed."""
        release_gpus()


class CudaMemory(DeviceMemory):
    """The memory of one GPU.

    Args:
        device: The GPU.
        share: The share of its memory that this process may take, where several train on one GPU.
        limit: Bytes that this process may take; no limit by default.
    """

    def __init__(self, device: torch.device, share: float = 1.0, limit: int | None = None) -> None:
        self.device = device
        total = torch.cuda.get_device_properties(device).total_memory
        self._most = int(min(share * total, total if limit is None else limit))
        # Set in any case: the process may have had a limit before.
        torch.cuda.set_per_process_memory_fraction(self._most / total, device)

    def free(self) -> int:
        """Return what other processes left, or what is left of this one's share if that is less."""
        unused, _ = torch.cuda.mem_get_info(self.device)
        reserved = torch.cuda.memory_reserved(self.device)
        allocated = torch.cuda.memory_allocated(self.device)
        # The allocator hands its reserve out again before it asks for more.
        return max(0, min(unused + reserved - allocated, self._most - allocated))

    def peak_of(self, work: Callable[[], object]) -> int:
        """Do some work; return the most bytes it took at once."""
        torch.cuda.synchronize(self.device)
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - before


def release_gpus() -> None:
    """Give back what torch's allocator keeps of GPUs, if they are used at all."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


class HostMemory(DeviceMemory):
    """The memory of this machine, as far as tensors use it.

    Args:
        available: Returns the bytes that this process may still take; unknown by default.
        limit: Bytes of tensors that a piece of work may take; no limit by default.
    """

    def __init__(
        self, available: Callable[[], int] | None = None, limit: int | None = None
    ) -> None:
        self.device = CPU
        self._available, self._limit = available, limit

    def free(self) -> int | None:
        """Return how many bytes may still be taken; None if unknown."""
        if self._available is None:
            return self._limit
        return self._available() if self._limit is None else min(self._available(), self._limit)

    def peak_of(self, work: Callable[[], object]) -> int:
        """Do some work; return the most bytes its tensors took at once."""
        with CountedTensors() as count:
            work()
        return count.peak

    def limited(self) -> AbstractContextManager[object]:
        """Refuse tensors beyond the limit, if there is one."""
        return nullcontext() if self._limit is None else CountedTensors(self._limit)


class CountedTensors(TorchDispatchMode):
    """Counts the bytes of tensors that operations make in this mode, as a GPU's allocator does.

    It is meant for a CPU. Memory that a kernel uses internally is not seen.

    Args:
        limit: The most bytes of live tensors; more raise ``torch.OutOfMemoryError``.
    """

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        """Bytes of live tensors, and the most there were at once."""
        self._limit = limit
        self._known = weakref.WeakSet[torch.UntypedStorage]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self._see((args, kwargs), counts=False)  # made before: views of it cost nothing
        result = func(*args, **(kwargs or {}))
        self._see(result, counts=True)
        return result

    def _see(self, values: Any, *, counts: bool) -> None:
        """Note the storage of each tensor, unless it has been seen before."""
        for value in tree_leaves(values):
            if not isinstance(value, torch.Tensor):
                continue
            storage = value.untyped_storage()
            if storage in self._known:
                continue
            size = storage.nbytes() if counts else 0
            if self._limit is not None and self.live + size > self._limit:
                raise torch.OutOfMemoryError(
                    f"out of memory: {size} bytes more than {self.live}, the limit is {self._limit}"
                )
            self._known.add(storage)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.live -= size


# Else torch imports its compiler, to switch that off in here: as slow as importing torch itself.
CountedTensors.__torch_dispatch__ = unwrap(CountedTensors.__torch_dispatch__)
