"""Clients on Ray workers, in chunks, with a bounded amount of work in flight."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import ray
from flwr.app import RecordDict
from ray.exceptions import RayError, RayTaskError

from fl_testbed.engine.client_work import Outcome, Task
from fl_testbed.engine.flower_internals import become_server
from fl_testbed.engine.grid import ClientGrid
from fl_testbed.engine.ray_pool import RayPool

WAVE = 2 / 3  # of the work left is handed out in one chunk per worker
FEWEST_CLIENTS = 3  # of average work in a chunk, which costs about 5 ms by itself
CHUNK_BYTES = 16 * 2**20  # of replies, so that what is in flight stays small
IN_FLIGHT = 2  # chunks per worker: one computes while one waits
ATTEMPTS = 3  # before a client whose worker dies each time is given up
GRACE_S = 30.0  # beyond the clients' own time limit, before a worker counts as hung


@dataclass
class _Chunk:
    tasks: list[Task]
    place: int
    """Where it stands in the order of handing out."""
    attempts: int = 0

    def retried(self, cohort: int) -> list["_Chunk"]:
        """Return what to run again after the worker died: a cohort as it was, else one by one."""
        attempts = self.attempts + 1
        if len(self.tasks) == 1 or (cohort > 1 and attempts < ATTEMPTS):
            return [_Chunk(self.tasks, self.place, attempts)]
        return [_Chunk([task], self.place, attempts=1) for task in self.tasks]


@dataclass
class _Load:
    """What one worker has been given, first come first."""

    chunks: deque[tuple[Any, _Chunk]] = field(default_factory=deque)
    head_since: float = 0.0


class RayGrid(ClientGrid):
    """Runs clients on the workers of a pool.

    Args:
        pool: The workers, prepared with this run's app.
        cohort: How many clients the app trains at once.
        client_timeout_s: Time limit of one client.
        work_of: A client's amount of work: the largest starts first. By default all are equal.
        on_event: Told about lost workers and retries.
    """

    def __init__(
        self,
        pool: RayPool,
        cohort: int,
        client_timeout_s: float,
        work_of: Callable[[int], float] = lambda client: 1.0,
        on_event: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__()
        become_server()
        self._pool, self._cohort, self._client_timeout_s = pool, cohort, client_timeout_s
        self._work_of, self._on_event = work_of, on_event

    def execute(self, content: RecordDict, tasks: list[Task]) -> Iterator[Outcome]:
        """Run the tasks in chunks and yield outcomes as chunks come back.

        A chunk whose worker dies or hangs runs again on another; a client whose worker dies each
        time is given up.
        """
        outcomes = self._outcomes(content, tasks)
        clients = [task.metadata.dst_node_id for task in tasks]
        return _in_order(outcomes, clients) if self.keep_order else outcomes

    def _outcomes(self, content: RecordDict, tasks: list[Task]) -> Iterator[Outcome]:
        content_ref = [ray.put(content)]
        waiting = deque(self._chunks(content, tasks))
        window = IN_FLIGHT * self._pool.n_workers if self.keep_order else len(waiting)
        loads = {worker: _Load() for worker in self._pool.workers}
        while waiting or any(load.chunks for load in loads.values()):
            for worker in self._pool.join_started():
                loads[worker] = _Load()
            if not loads:
                self._pool.wait_for_workers()
                loads = {worker: _Load() for worker in self._pool.workers}
            self._hand_out(waiting, loads, content_ref, window)
            refs = {ref: worker for worker, load in loads.items() for ref, _ in load.chunks}
            done, _ = ray.wait(list(refs), timeout=self._time_left(loads))
            for ref in done:
                if refs[ref] in loads:  # else it was lost with another chunk of this batch
                    yield from _let_go(self._collect(refs[ref], ref, loads, waiting))
            for worker in self._hung(loads):
                yield from self._lose(worker, loads, waiting, "worker hangs")

    def _chunks(self, content: RecordDict, tasks: list[Task]) -> list[_Chunk]:
        """Cut tasks into chunks, most work first and the last ones small, so that all workers end
        together. Who trains in one cohort depends on the order of clients alone."""
        if self._cohort > 1:
            size = self._cohort
            cut = [tasks[i : i + size] for i in range(0, len(tasks), size)]
            if not self.keep_order:
                cut.sort(key=lambda chunk: -sum(map(self._work, chunk)))
        else:
            if not self.keep_order:  # sorting is stable: equal work stays in client order
                tasks = sorted(tasks, key=self._work, reverse=True)
            cut = list(self._shrinking(tasks, self._most_clients(content)))
        return [_Chunk(chunk, place) for place, chunk in enumerate(cut)]

    def _work(self, task: Task) -> float:
        return self._work_of(task.metadata.dst_node_id)

    def _shrinking(self, tasks: list[Task], largest: int) -> Iterator[list[Task]]:
        """Yield chunks in waves of one per worker, each wave a share of the work that is left."""
        n_workers = self._pool.n_workers
        works = [self._work(task) for task in tasks]
        left = sum(works)
        smallest = FEWEST_CLIENTS * n_workers * left / max(1, len(tasks))
        begin = 0
        while begin < len(tasks):
            wave = max(left * WAVE, smallest) if left > 1.5 * smallest else left
            share = wave / n_workers
            for _ in range(n_workers):
                end, taken = begin, 0.0
                while end < min(begin + largest, len(tasks)) and (
                    end == begin or taken + works[end] / 2 <= share
                ):
                    taken += works[end]
                    end += 1
                if end > begin:
                    yield tasks[begin:end]
                begin, left = end, left - taken

    @staticmethod
    def _most_clients(content: RecordDict) -> int:
        """Return how many replies fit into the bytes of a chunk."""
        reply_bytes = sum(
            array.numpy().nbytes
            for record in content.array_records.values()
            for array in record.values()
        )
        return max(1, CHUNK_BYTES // max(1, reply_bytes))

    def _hand_out(
        self,
        waiting: deque[_Chunk],
        loads: dict[Any, _Load],
        content_ref: list[Any],
        window: int,
    ) -> None:
        handed_out = [chunk.place for load in loads.values() for _, chunk in load.chunks]
        oldest = min([*handed_out, *(chunk.place for chunk in waiting)], default=0)
        for depth in range(IN_FLIGHT):
            for worker, load in loads.items():
                if not waiting or waiting[0].place >= oldest + window:
                    return
                if len(load.chunks) <= depth:
                    chunk = waiting.popleft()
                    ref = worker.run.remote(content_ref, chunk.tasks, self._client_timeout_s)
                    if not load.chunks:
                        load.head_since = monotonic()
                    load.chunks.append((ref, chunk))

    def _collect(
        self, worker: Any, ref: Any, loads: dict[Any, _Load], waiting: deque[_Chunk]
    ) -> list[Outcome]:
        load = loads[worker]
        try:
            outcomes = ray.get(ref)
        except RayTaskError:
            raise  # a fault of the engine itself, not of a worker
        except RayError as fault:
            reason = f"worker lost ({type(fault).__name__})"
            return self._lose(worker, loads, waiting, reason)
        load.chunks = deque(item for item in load.chunks if item[0] != ref)
        load.head_since = monotonic()
        return outcomes

    def _lose(
        self, worker: Any, loads: dict[Any, _Load], waiting: deque[_Chunk], reason: str
    ) -> list[Outcome]:
        """Replace a worker; queue its chunks again and return outcomes of clients given up."""
        load = loads.pop(worker)
        self._pool.replace(worker)
        given_up: list[Outcome] = []
        for place, (_, chunk) in enumerate(reversed(load.chunks)):
            is_head = place == len(load.chunks) - 1
            # Chunks behind the head were not running: they are not to blame.
            again = chunk.retried(self._cohort) if is_head else [chunk]
            for part in reversed(again):
                if part.attempts >= ATTEMPTS:
                    text = f"its worker died {ATTEMPTS} times"
                    given_up += [
                        Outcome(t.metadata.dst_node_id, None, text, t.state) for t in part.tasks
                    ]
                else:
                    waiting.appendleft(part)
        clients = sum(len(chunk.tasks) for _, chunk in load.chunks)
        self._on_event(f"{reason}: {clients} clients run again elsewhere")
        return given_up

    def _time_left(self, loads: dict[Any, _Load]) -> float:
        now = monotonic()
        left = [
            load.head_since + self._limit(load.chunks[0][1]) - now
            for load in loads.values()
            if load.chunks
        ]
        # Wake up now and then to take in workers that have started.
        return max(0.0, min([*left, 1.0]))

    def _limit(self, chunk: _Chunk) -> float:
        return self._client_timeout_s * len(chunk.tasks) + GRACE_S

    def _hung(self, loads: dict[Any, _Load]) -> list[Any]:
        """Return workers that stopped answering, even to their own time limit."""
        now = monotonic()
        return [
            worker
            for worker, load in loads.items()
            if load.chunks and now - load.head_since > self._limit(load.chunks[0][1])
        ]


def _let_go(outcomes: list[Outcome]) -> Iterator[Outcome]:
    """Yield outcomes and keep none: the object store holds a chunk while any of it is in use."""
    outcomes.reverse()
    while outcomes:
        yield outcomes.pop()


def _in_order(outcomes: Iterable[Outcome], clients: Iterable[int]) -> Iterator[Outcome]:
    """Yield outcomes in the order of clients. Those that come early stay in the object store."""
    early: dict[int, Outcome] = {}
    due = deque(clients)
    for outcome in outcomes:
        early[outcome.client] = outcome
        del outcome  # see _let_go
        while due and due[0] in early:
            yield early.pop(due.popleft())
