"""How a round's time grows with clients, parameters and workers.

python experiments/benchmarks/growth.py
"""

import statistics

import ray
from engine_against_flower import FreshModel, serve
from measure import report

from fl_testbed.engine.ray_grid import RayGrid
from fl_testbed.engine.ray_pool import RayPool

CLIENTS = (100, 200, 500, 1_000, 2_000)
PARAMETERS = (10_000, 100_000, 1_000_000)
ROUNDS = 6  # the first is left out


def per_client(pool: RayPool, n: int, d: int) -> float:
    """Return milliseconds per client and round under the mean."""
    grid = RayGrid(pool, cohort=1, client_timeout_s=600.0)
    grid.sample = range(n)
    return statistics.median(serve(grid, n, d, ROUNDS, "mean")[1:]) / n * 1e3


def main() -> None:
    for workers in (2, 1):
        pool = RayPool(workers)
        pool.prepare(lambda data: FreshModel(), None, torch_threads=1)
        sizes = [(n, 100_000) for n in CLIENTS] + [(100, d) for d in PARAMETERS if d != 100_000]
        for n, d in sizes:
            figures = {f"per client, {workers} workers": (per_client(pool, n, d), "ms")}
            report("growth", f"{n} clients x {d} parameters", figures)
        ray.shutdown()


if __name__ == "__main__":
    main()
