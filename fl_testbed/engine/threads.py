"""How many threads computing may use: results depend on it in their last bits."""

import torch
from threadpoolctl import threadpool_limits


def limit_threads(count: int) -> None:
    """Let torch and numpy's BLAS use so many threads in this process.

    BLAS matters as much as torch: its idle threads spin, and take the cores from Ray's workers.
    """
    torch.set_num_threads(count)
    threadpool_limits(count)
