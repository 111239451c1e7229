"""A matrix of updates in blocks of columns: small temporary copies, and several cores at work."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from strategies.shapes import Float, Tensor

CPU_BLOCK = 400_000  # elements worked on at a time: a few copies of them stay in a core's cache
GPU_BLOCK = 64_000_000  # a GPU wants few, large kernels
AHEAD = 4  # blocks per thread whose results wait to be taken

Found = TypeVar("Found")

_ALONE = threading.RLock()  # how many threads torch uses is a setting of the whole process
_cores = 1


def use_cores(count: int) -> None:
    """Let this process work on so many blocks at a time: a server whose clients wait for it, say.

    By default it is the number of torch's threads. Results do not depend on it.
    """
    global _cores
    _cores = count


def column_blocks(updates: Float[Tensor, "n d"]) -> Iterator[slice]:
    """Cut the columns into blocks, so that temporary copies stay small whatever n and d are."""
    n, d = updates.shape
    width = max(1, (GPU_BLOCK if updates.is_cuda else CPU_BLOCK) // max(n, 1))
    for start in range(0, d, width):
        yield slice(start, min(start + width, d))


def n_at_a_time(updates: Float[Tensor, "n d"], n_blocks: int) -> int:
    """Return on how many blocks :func:`each_block` works at a time."""
    return 1 if updates.is_cuda else min(max(_cores, torch.get_num_threads()), max(n_blocks, 1))


def each_block(
    updates: Float[Tensor, "n d"],
    work: Callable[[slice], Found],
    blocks: Sequence[slice] | None = None,
) -> Iterator[Found]:
    """Work on all blocks of columns, several at a time; yield what each gives, in their order.

    On a CPU a block is one thread's from beginning to end: that takes half as long as sharing out
    each operation among torch's threads, since numpy's would keep all but one waiting.
    """
    blocks = list(column_blocks(updates)) if blocks is None else blocks
    n_threads = n_at_a_time(updates, len(blocks))
    if n_threads == 1:
        yield from map(work, blocks)
        return
    with one_torch_thread(), ThreadPoolExecutor(n_threads) as threads:
        for start in range(0, len(blocks), AHEAD * n_threads):
            yield from threads.map(work, blocks[start : start + AHEAD * n_threads])


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let operations run on the thread that calls them, as long as the block lasts."""
    with _ALONE:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
