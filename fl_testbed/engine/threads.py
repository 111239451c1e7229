"""How a process that computes uses the machine."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's names for what can be set
KEPT_BYTES = 32 * 2**20  # the most that glibc takes


def limit_threads(count: int) -> None:
    """Let torch and numpy's BLAS use so many threads in this process: results depend on it in their
    last bits.

    BLAS matters as much as torch: its idle threads spin, and take the cores from Ray's workers.
    """
    torch.set_num_threads(count)
    threadpool_limits(count)


@contextmanager
def threads_given_back() -> Iterator[None]:
    """Let torch and BLAS use as many threads afterwards as before."""
    before = torch.get_num_threads()
    try:
        with threadpool_limits():  # sets no limit, and gives back what was set meanwhile
            yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Let a process use freed memory again for its next models, where the C library is glibc.

    By default large blocks go back to the system and come back as fresh pages, one page fault per
    4 KiB: a quarter of what a worker spends on a message.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
