"""Working on a matrix of updates by blocks of columns or of rows, several at a time."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

import torch

from strategies.shapes import Float, Tensor

CPU_BLOCK = 400_000  # elements worked on at a time: a few copies of them stay in a core's cache
ROW_BLOCK = 2**20  # elements: a block that is read again is still in a cache
GPU_BLOCK = 64_000_000  # a GPU wants few, large kernels

Found = TypeVar("Found")
Scratch = TypeVar("Scratch")

_ALONE = threading.Lock()  # how many threads torch uses is a setting of the whole process


def column_blocks(
    updates: Float[Tensor, "n d"], width: int | None = None, least: int = 1
) -> Iterator[slice]:
    """Cut the columns into blocks, so that temporary copies stay small whatever n and d are.

    Args:
        updates: The matrix, shape (n, d).
        width: Columns in a block; by default as many as give it a suitable size.
        least: The fewest columns in a block of the default size.
    """
    n, d = updates.shape
    size = CPU_BLOCK if updates.device.type == "cpu" else GPU_BLOCK
    width = width or max(least, size // max(n, 1))
    for start in range(0, d, width):
        yield slice(start, min(start + width, d))


def row_blocks(updates: Float[Tensor, "n d"]) -> Iterator[slice]:
    """Cut the rows into blocks of one long row or several short ones."""
    n, d = updates.shape
    height = max(1, (ROW_BLOCK if updates.device.type == "cpu" else GPU_BLOCK) // max(d, 1))
    for start in range(0, n, height):
        yield slice(start, min(start + height, n))


def each_block(
    blocks: Iterable[slice],
    work: Callable[[slice, Scratch], Found],
    new_scratch: Callable[[], Scratch],
    on_cpu: bool,
) -> list[Found]:
    """Work on all blocks, several at a time; return what each gives, in their order.

    On a CPU one thread handles a block from beginning to end. That takes half as long as splitting
    each operation among torch's threads, which wait for each other after every operation, and the
    result is the same to the last bit for any number of threads.

    Args:
        blocks: The blocks.
        work: Takes a block, and scratch memory to write into. It must not call this function
            itself.
        new_scratch: Returns the scratch memory of one thread, which reuses it for every block: new
            memory for each block would cost as much as the sums.
        on_cpu: Whether the matrix is on a CPU; on a GPU one block comes after the other.
    """
    if not on_cpu:
        scratch = new_scratch()
        return [work(columns, scratch) for columns in blocks]
    blocks = list(blocks)
    n_threads = min(torch.get_num_threads(), len(blocks))
    spare: SimpleQueue[Scratch] = SimpleQueue()
    for _ in range(n_threads):
        spare.put(new_scratch())
    work_on = partial(_with_spare, work, spare)
    with one_torch_thread():
        if n_threads <= 1:
            return [work_on(block) for block in blocks]
        with ThreadPoolExecutor(n_threads) as threads:
            return list(threads.map(work_on, blocks))


def _with_spare(
    work: Callable[[slice, Scratch], Found], spare: "SimpleQueue[Scratch]", block: slice
) -> Found:
    scratch = spare.get()
    try:
        return work(block, scratch)
    finally:
        spare.put(scratch)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch's operations run on the calling thread alone inside this context."""
    with _ALONE:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
