"""Clients on Ray: long-lived workers that keep the data, and a bounded amount of work in flight."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import ray
import torch
from flwr.app import RecordDict
from flwr.clientapp import ClientApp

from fl_testbed.engine.client_work import Outcome, Task, cohort_size, run_chunk
from fl_testbed.engine.grid import ClientGrid

CHUNKS_PER_WORKER = 4  # per round: enough to even out slow clients
CHUNK_BYTES = 16 * 2**20  # of replies, so that what is in flight stays small
IN_FLIGHT = 2  # chunks per worker: one computes while one waits

BuildApp = Callable[[Any], ClientApp]
"""Builds the ClientApp on a worker, from data that it shares with other workers of its node."""


class _Worker:
    """Lives on a Ray worker; keeps one ClientApp and one received content."""

    def __init__(self) -> None:
        self._app_key, self._app = -1, ClientApp()
        self._content_ref: Any = None
        self._content: RecordDict = RecordDict()

    def prepare(self, key: int, build: BuildApp, data: list[Any], torch_threads: int) -> int:
        """Build the app of a run; return its cohort size."""
        torch.set_num_threads(torch_threads)
        self._app = build(ray.get(data[0]))
        self._app_key = key
        return cohort_size(self._app)

    def run(self, key: int, content: list[Any], tasks: list[Task]) -> list[Outcome]:
        """Answer a chunk; the content is fetched once per round."""
        assert key == self._app_key, "prepare comes before run"
        if content[0] != self._content_ref:
            self._content, self._content_ref = ray.get(content[0]), content[0]
        return run_chunk(self._app, self._content, tasks)


class RayPool:
    """Workers on a Ray cluster that stay up for all runs of a command.

    Args:
        n_workers: Worker processes of one core each; by default one per core of the cluster.
        address: ``local`` starts a cluster of this machine alone and ends it afterwards.
    """

    def __init__(self, n_workers: int | None = None, address: str = "local") -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local = {"num_cpus": n_workers, "include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
        self.n_workers = n_workers or int(ray.cluster_resources().get("CPU", 1))
        worker: Any = ray.remote(num_cpus=1)(_Worker)  # Ray's actor handles are not typed
        self.workers: list[Any] = [worker.remote() for _ in range(self.n_workers)]
        self._data: dict[int, tuple[Any, Any]] = {}
        self._n_runs = 0

    def share(self, data: Any) -> Any:
        """Put data into the object store, once however often it is asked for."""
        if id(data) not in self._data:
            self._data = {id(data): (data, ray.put(data))}  # the last run's data can go
        return self._data[id(data)][1]

    def grid(self, build: BuildApp, data: Any, torch_threads: int) -> "RayGrid":
        """Return a grid for one run: its app is built on every worker."""
        self._n_runs += 1
        ref = [self.share(data)]
        cohorts = ray.get(
            [w.prepare.remote(self._n_runs, build, ref, torch_threads) for w in self.workers]
        )
        return RayGrid(self, self._n_runs, cohorts[0])

    def close(self) -> None:
        """End the workers, and the cluster if it is this command's own."""
        ray.shutdown()


class RayGrid(ClientGrid):
    """Runs clients on the workers of a pool."""

    def __init__(self, pool: RayPool, key: int, cohort: int) -> None:
        super().__init__()
        self._pool, self._key, self._cohort = pool, key, cohort

    def execute(self, content: RecordDict, tasks: list[Task]) -> Iterator[Outcome]:
        """Run the tasks in chunks and yield outcomes as chunks come back."""
        content_ref = ray.put(content)
        size = self._chunk_size(content, len(tasks))
        waiting = deque(tasks[start : start + size] for start in range(0, len(tasks), size))
        idle = deque(worker for _ in range(IN_FLIGHT) for worker in self._pool.workers)
        running: dict[Any, Any] = {}
        while waiting or running:
            while waiting and idle:
                worker = idle.popleft()
                running[worker.run.remote(self._key, [content_ref], waiting.popleft())] = worker
            done, _ = ray.wait(list(running), num_returns=1)
            idle.append(running.pop(done[0]))
            yield from ray.get(done[0])

    def _chunk_size(self, content: RecordDict, n_tasks: int) -> int:
        """Return clients per chunk: a cohort, or as many as keep all workers busy."""
        if self._cohort > 1:
            return self._cohort
        reply_bytes = sum(
            array.numpy().nbytes
            for record in content.array_records.values()
            for array in record.values()
        )
        even = -(-n_tasks // (CHUNKS_PER_WORKER * self._pool.n_workers))
        return max(1, min(even, CHUNK_BYTES // max(1, reply_bytes)))
