"""Clients on Ray workers, in chunks, with a bounded amount of work in flight."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple

import ray
from flwr.app import ArrayRecord, RecordDict
from ray.exceptions import RayError, RayTaskError

from fl_testbed.engine.client_work import Outcome, Task
from fl_testbed.engine.flower_internals import become_server
from fl_testbed.engine.grid import ClientGrid
from fl_testbed.engine.ray_pool import RayPool
from fl_testbed.engine.shared_slots import SLOT_BYTES, Replies, SharedSlots, Slot
from strategies.flower_arrays import records_in, values_of

WAVE = 2 / 3  # share of the work left that a wave of chunks, one per worker, hands out
FEWEST_CLIENTS = 3  # of average work in a chunk: a chunk by itself costs about 5 ms
CHUNK_BYTES = 16 * 2**20  # of replies in a chunk at most, so that little is in flight
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
        """Return the chunks to run again after the worker died: a cohort unchanged until its last
        attempt, else each client by itself."""
        attempts = self.attempts + 1
        if len(self.tasks) == 1 or (cohort > 1 and attempts < ATTEMPTS):
            return [_Chunk(self.tasks, self.place, attempts)]
        return [_Chunk([task], self.place, attempts=1) for task in self.tasks]


class _Sent(NamedTuple):
    """A chunk that a worker has been given."""

    ref: Any
    chunk: _Chunk
    slot: Slot | None


@dataclass
class _Load:
    """The chunks that one worker has been given, oldest first."""

    slots: SharedSlots | None
    sent: deque[_Sent] = field(default_factory=deque)
    head_since: float = 0.0


class RayGrid(ClientGrid):
    """Runs clients on the workers of a pool.

    Args:
        pool: The workers, prepared with this run's app.
        cohort: How many clients the app trains at once.
        client_timeout_s: Time limit of one client.
        work_of: Returns a client's amount of work: the largest starts first. By default all are
            equal.
        on_event: Is called with a line about each lost worker and its retries.
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
        reply_bytes = _array_bytes(content)
        waiting = deque(self._chunks(tasks, max(1, CHUNK_BYTES // reply_bytes)))
        window = IN_FLIGHT * self._pool.n_workers if self.keep_order else len(waiting)
        loads = self._loads(self._pool.workers)
        while waiting or any(load.sent for load in loads.values()):
            loads |= self._loads(self._pool.join_started())
            if not loads:
                self._pool.wait_for_workers()
                loads = self._loads(self._pool.workers)
            self._hand_out(waiting, loads, content_ref, window, SLOT_BYTES // reply_bytes)
            refs = {sent.ref: worker for worker, load in loads.items() for sent in load.sent}
            done, _ = ray.wait(list(refs), timeout=self._time_left(loads))
            for ref in done:
                if refs[ref] in loads:  # else it was lost with another chunk of this batch
                    yield from _let_go(self._collect(refs[ref], ref, loads, waiting))
            for worker in self._hung(loads):
                yield from self._lose(worker, loads, waiting, "worker does not answer")

    def _loads(self, workers: list[Any]) -> dict[Any, _Load]:
        return {worker: _Load(self._pool.slots_of(worker)) for worker in workers}

    def _chunks(self, tasks: list[Task], largest: int) -> list[_Chunk]:
        """Cut tasks into chunks, those with most work first and the last ones small, so that all
        workers end together. Which clients form a cohort depends on the order of clients alone."""
        if self._cohort > 1:
            size = self._cohort
            cut = [tasks[i : i + size] for i in range(0, len(tasks), size)]
            if not self.keep_order:
                cut.sort(key=lambda chunk: -sum(map(self._work, chunk)))
        else:
            if not self.keep_order:  # sorting is stable: equal work stays in client order
                tasks = sorted(tasks, key=self._work, reverse=True)
            cut = list(self._shrinking(tasks, largest))
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

    def _hand_out(
        self,
        waiting: deque[_Chunk],
        loads: dict[Any, _Load],
        content_ref: list[Any],
        window: int,
        fit_slot: int,
    ) -> None:
        handed_out = [sent.chunk.place for load in loads.values() for sent in load.sent]
        oldest = min([*handed_out, *(chunk.place for chunk in waiting)], default=0)
        for depth in range(IN_FLIGHT):
            for worker, load in loads.items():
                if not waiting or waiting[0].place >= oldest + window:
                    return
                if len(load.sent) <= depth:
                    chunk = waiting.popleft()
                    slot = None
                    if load.slots is not None and len(chunk.tasks) <= fit_slot:
                        slot = load.slots.lend()
                    limit = self._client_timeout_s
                    ref = worker.run.remote(content_ref, chunk.tasks, limit, slot)
                    if not load.sent:
                        load.head_since = monotonic()
                    load.sent.append(_Sent(ref, chunk, slot))

    def _collect(
        self, worker: Any, ref: Any, loads: dict[Any, _Load], waiting: deque[_Chunk]
    ) -> list[Outcome]:
        load = loads[worker]
        try:
            replies: Replies = ray.get(ref)
        except RayTaskError:
            raise  # a fault of the engine itself, not of a worker
        except RayError as fault:
            reason = f"worker lost ({type(fault).__name__})"
            return self._lose(worker, loads, waiting, reason)
        (done,) = (sent for sent in load.sent if sent.ref == ref)
        load.sent.remove(done)
        load.head_since = monotonic()
        if load.slots is None or done.slot is None:
            return replies.outcomes
        return load.slots.read(replies, done.slot)

    def _lose(
        self, worker: Any, loads: dict[Any, _Load], waiting: deque[_Chunk], reason: str
    ) -> list[Outcome]:
        """Replace a worker, queue its chunks again, and return the outcomes of clients given up."""
        load = loads.pop(worker)
        self._pool.replace(worker)
        for other in self._pool.replace_dead([w for w, own in loads.items() if not own.sent]):
            del loads[other]
        given_up: list[Outcome] = []
        for place, sent in enumerate(reversed(load.sent)):
            is_head = place == len(load.sent) - 1
            # Chunks behind the first were not running yet: they cannot have killed the worker.
            again = sent.chunk.retried(self._cohort) if is_head else [sent.chunk]
            for part in reversed(again):
                if part.attempts >= ATTEMPTS:
                    text = f"its worker died {ATTEMPTS} times"
                    given_up += [
                        Outcome(t.metadata.dst_node_id, None, text, t.state) for t in part.tasks
                    ]
                else:
                    waiting.appendleft(part)
        clients = sum(len(sent.chunk.tasks) for sent in load.sent)
        self._on_event(f"{reason}: {clients} clients run again elsewhere")
        return given_up

    def _time_left(self, loads: dict[Any, _Load]) -> float:
        now = monotonic()
        left = [
            load.head_since + self._limit(load.sent[0].chunk) - now
            for load in loads.values()
            if load.sent
        ]
        # Wake up now and then to take in workers that have started.
        return max(0.0, min([*left, 1.0]))

    def _limit(self, chunk: _Chunk) -> float:
        return self._client_timeout_s * len(chunk.tasks) + GRACE_S

    def _hung(self, loads: dict[Any, _Load]) -> list[Any]:
        """Return workers that do not answer even after their clients' time limit and a grace
        period."""
        now = monotonic()
        late = [
            (worker, load.sent[0].ref)
            for worker, load in loads.items()
            if load.sent and now - load.head_since > self._limit(load.sent[0].chunk)
        ]
        # The answer may have arrived unread: the consumer of outcomes may take long over each.
        return [worker for worker, ref in late if not ray.wait([ref], timeout=0)[0]]


def _array_bytes(content: RecordDict) -> int:
    """Return the bytes of a message's arrays: those of a reply are as many."""
    records = records_in(content, ArrayRecord).values()
    return max(1, sum(values_of(a).nbytes for record in records for a in record.values()))


def _let_go(outcomes: list[Outcome]) -> Iterator[Outcome]:
    """Yield outcomes without keeping any: a chunk's memory is held while any of it is in use."""
    outcomes.reverse()
    while outcomes:
        yield outcomes.pop()


def _in_order(outcomes: Iterable[Outcome], clients: Iterable[int]) -> Iterator[Outcome]:
    """Yield outcomes in the order of clients; early ones wait without being copied."""
    early: dict[int, Outcome] = {}
    due = deque(clients)
    for outcome in outcomes:
        early[outcome.client] = outcome
        del outcome  # see _let_go
        while due and due[0] in early:
            yield early.pop(due.popleft())
