"""How a computing process uses the machine: its threads, and freed memory."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's names of settings
KEPT_BYTES = 32 * 2**20  # the most that glibc accepts


def limit_threads(count: int) -> None:
    """Set how many threads torch and numpy's BLAS use in this process; the last bits of results
    depend on it.

    BLAS matters as much as torch: its idle threads spin, and take cores from Ray's workers.
    """
    torch.set_num_threads(count)
    threadpool_limits(count)


@contextmanager
def threads_given_back() -> Iterator[None]:
    """Restore, after the block, how many threads torch and BLAS use."""
    before = torch.get_num_threads()
    try:
        with threadpool_limits():  # sets no limit, but undoes those set inside
            yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Make a process reuse freed memory for its next models, if its C library is glibc.

    By default large blocks go back to the system and come back as fresh pages, one page fault per
    4 KiB: a quarter of the time that a worker spends on a message.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
