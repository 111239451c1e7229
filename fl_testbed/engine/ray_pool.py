"""Long-lived Ray workers: they keep data and models, and may die at any time."""

import logging
import os
import re
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

import ray
from flwr.app import RecordDict
from flwr.clientapp import ClientApp
from ray.exceptions import RayActorError, RayError, RayTaskError
from rich.text import Text

from clients.device_memory import release_gpus
from fl_testbed.engine.client_work import Task, cohort_size, run_chunk
from fl_testbed.engine.errors import PoolError
from fl_testbed.engine.installation import check_same, installation
from fl_testbed.engine.local_ray import (
    cores_allotted,
    ctrl_c_waits,
    keep_others_out,
    sigterm_interrupts,
)
from fl_testbed.engine.placement import share_memory
from fl_testbed.engine.shared_slots import Replies, SharedSlots, Slot, SlotWriter
from fl_testbed.engine.threads import keep_freed_memory, limit_threads

START_TIMEOUT_S = 120.0  # for the first worker; importing torch takes seconds
ANSWER_TIMEOUT_S = 10.0  # for a cluster's head node, and for an idle worker
START_ATTEMPTS = 3  # per worker, that may fail in a row before the pool gives up
OTHERS_TIMEOUT_S = 20.0  # for the other workers, before work begins without them

RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Replies are freed as soon as they are read. By default Ray frees them once a second, in which
    # a round of large models fills its store several times over.
    "RAY_free_objects_period_milliseconds": "5",
    "RAY_free_objects_batch_size": "1",
}


def _reached(address: str) -> str:
    """Return an address with its host name resolved to a number. Ray resolves names by itself, and
    waits for ever for one that only /etc/hosts knows if no DNS server answers.

    Raises:
        PoolError: If nothing answers there; Ray would go on trying for a quarter of an hour.
    """
    scheme = "ray://" if address.startswith("ray://") else ""
    host, _, port = address.removeprefix(scheme).rpartition(":")
    if not host:  # local, or auto
        return address
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_TIMEOUT_S) as reached:
            number = reached.getpeername()[0]
    except (OSError, OverflowError) as fault:
        text = (
            f"no Ray cluster answers at {address} ({fault}): start its head node, or give another"
        )
        raise PoolError(text) from None
    return f"{scheme}[{number}]:{port}" if ":" in number else f"{scheme}{number}:{port}"


@contextmanager
def _one_line(address: str) -> Iterator[None]:
    """Say in one line what is wrong if Ray does not start, or a cluster cannot be joined."""
    try:
        yield
    except Exception as fault:  # Ray's own; a plain Exception if Ray is not up in time
        reason = " ".join(str(fault).split()).split(". ")[0]
        text = (
            f"cannot join the Ray cluster at {address} ({reason}): this machine must be a node "
            "of it, with the same Ray and Python, and with its token in RAY_AUTH_TOKEN"
        )
        if address == "local":
            text = (
                f"Ray does not start here ({reason}): check memory, free space in /tmp and "
                "/dev/shm, and that TMPDIR is short (RAY_TMPDIR=/tmp takes its place)"
            )
        raise PoolError(text) from None


def _unfit_node(text: str) -> PoolError:
    """Return the fault of a worker that died while it started, made from Ray's text."""
    last = Text.from_ansi(text).plain.rstrip().split("\n")[-1]
    (node,) = re.findall(r"\bip=([^,)]+)", text)[:1] or ("?",)
    reason = last.rpartition("OtherInstallationError: ")[2]
    return PoolError(f"no worker can start on node {node}: {reason}")


def gpu_share(n_gpus: int, n_workers: int) -> float:
    """Return each worker's share of a GPU: a whole one, or an equal part of one.

    No share is spread over two GPUs: with 2 GPUs and 3 workers, two workers have to share one, so
    each worker gets half.
    """
    return 1 / -(-n_workers // n_gpus) if n_gpus else 0.0


def _node() -> str:
    """Return Ray's id of the node that this process is on."""
    return ray.get_runtime_context().get_node_id()


def fetched(reference: list[Any]) -> Any:
    """Return shared data, on a worker.

    When a node goes down, its object store goes before its workers. Then this worker exits, which
    tells the driver that it is lost; an exception would tell it that the run has failed.
    """
    try:
        return ray.get(reference[0])
    except OSError:
        os._exit(1)


BuildApp = Callable[[Any], ClientApp]
"""Builds a ClientApp on a worker from data that all workers of a node share."""
Stream = Callable[..., Iterator[Any]]
"""A generator that runs on a worker."""


class _Worker:
    """What lives in a worker process."""

    def __init__(self, n_sharing: int, wanted: Mapping[str, str | None] | None) -> None:
        if wanted is not None:
            check_same(wanted)
        # Else Ray raises SystemExit in the client that trains, which would seem to have failed.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        keep_freed_memory()
        share_memory(n_sharing)
        self._app = ClientApp()
        self._content_ref: Any = None
        self._content: RecordDict = RecordDict()
        self._slots = SlotWriter(_node())

    def idle(self) -> int:
        """Answer, which shows that this worker lives; return the cohort size without an app, 1."""
        return 1

    def prepare(self, build: BuildApp, data: list[Any], torch_threads: int) -> int:
        """Build the app of a run; return its cohort size."""
        self._app = ClientApp()
        release_gpus()  # frees what the last run's app held
        limit_threads(torch_threads)
        self._app = build(fetched(data))
        return cohort_size(self._app)

    def run(
        self, content: list[Any], tasks: list[Task], timeout_s: float, slot: Slot | None
    ) -> Replies:
        """Answer a chunk of messages; the content is fetched once per round."""
        if content[0] != self._content_ref:
            self._content, self._content_ref = fetched(content), content[0]
        return self._slots.put(run_chunk(self._app, self._content, tasks, timeout_s), slot)

    def stream(self, generate: Stream, data: list[Any], *args: Any) -> Iterator[Any]:
        """Run a generator here and stream what it yields."""
        yield from generate(fetched(data), *args)


class RayPool:
    """Workers on a Ray cluster that stay up for all runs of a command.

    A worker that dies is replaced where the cluster has room; work goes on with the others.

    Args:
        n_workers: Worker processes of one core each; by default one per GPU that they use, or per
            core of the cluster.
        address: ``local`` starts a cluster of this machine alone.
        gpus: Whether workers share the cluster's GPUs evenly, if it has any.

    Raises:
        PoolError: If Ray does not start, or nothing answers at the address, or the cluster there
            cannot be joined.
    """

    def __init__(
        self, n_workers: int | None = None, address: str = "local", *, gpus: bool = False
    ) -> None:
        for name, value in RAY_SETTINGS.items():
            os.environ.setdefault(name, value)
        if address == "local":
            keep_others_out()
        reached = _reached(address)
        n_cores = n_workers or cores_allotted()
        local = {"num_cpus": n_cores, "include_dashboard": False} if address == "local" else {}
        with sigterm_interrupts(), ctrl_c_waits(), _one_line(address):
            ray.init(address=reached, log_to_driver=False, logging_level=logging.ERROR, **local)
        self._wanted = None if address == "local" else installation()
        resources = ray.cluster_resources()
        self.n_gpus = int(resources.get("GPU", 0)) if gpus else 0
        self.n_workers = n_workers or max(1, self.n_gpus or int(resources.get("CPU", 1)))
        needs = {"num_cpus": 1, "num_gpus": gpu_share(self.n_gpus, self.n_workers)}
        self._actor: Any = ray.remote(**needs)(_Worker)  # Ray's handles are not typed
        self._starting: dict[Any, Any] = {}  # the first answer awaited -> worker
        self._late: set[Any] = set()  # those that a run waited for in vain, mostly for lack of room
        self._prepare: tuple[Any, ...] | None = None
        self._shared: tuple[Any, Any] | None = None  # the last data and its reference
        self._cohort = 1
        self._failed_starts: list[str] = []  # reasons, since a worker last came up
        self._slots: dict[Any, SharedSlots | None] = {}
        self.workers: list[Any] = []
        for _ in range(self.n_workers):
            self._start()

    def share(self, data: Any) -> list[Any]:
        """Put data into the object store, unless they were the last that were put there, and return
        the reference, wrapped in a list."""
        if self._shared is None or self._shared[0] is not data:
            self._shared = (data, ray.put(data))
        return [self._shared[1]]  # in a list, so that Ray passes the reference itself

    def prepare(self, build: BuildApp, data: Any, torch_threads: int) -> int:
        """Build an app on every worker, and on those that start later; return its cohort size.

        Workers that an earlier run gave up on are started again.

        Raises:
            PoolError: If no worker comes up.
        """
        self._failed_starts = []
        self._prepare = (build, self.share(data), torch_threads)
        starting, self._starting = self._starting.values(), {}
        self.replace_dead(self.workers)  # includes those still at work for a failed run
        everyone = [*self.workers, *starting]
        self.workers, self._slots = [], {}  # new slots: old ones may be lent to abandoned work
        self._starting |= {worker.prepare.remote(*self._prepare): worker for worker in everyone}
        while len(self._starting) < self.n_workers:
            self._start()
        self.wait_for_workers()
        return self._cohort

    def wait_for_workers(self) -> None:
        """Wait until a worker is ready, then a while for the others, but for none of them twice.

        Raises:
            PoolError: If none comes up.
        """
        deadline = monotonic() + START_TIMEOUT_S
        while self._starting and (time_left := deadline - monotonic()) > 0:
            if self.workers and self._late.issuperset(self._starting.values()):
                break
            self.join_started(timeout_s=time_left)
            if self.workers:
                deadline = min(deadline, monotonic() + OTHERS_TIMEOUT_S)
        self._late = set(self._starting.values())
        if not self.workers and self._failed_starts:
            reason = " ".join(Text.from_ansi(self._failed_starts[-1]).plain.split())
            n = len(self._failed_starts)
            raise PoolError(f"no Ray worker started, {n} were lost, the last one with: {reason}")
        if not self.workers:
            raise PoolError(
                f"no Ray worker started within {START_TIMEOUT_S:g} s: check that the cluster has a "
                "free core (Ray runs workers at low priority unless RAY_worker_niceness=0), or run "
                "it again: the first import of torch from a shared disk may take longer"
            )

    def join_started(self, timeout_s: float = 0.0) -> list[Any]:
        """Add workers that have become ready to the pool, and return them.

        Raises:
            PoolError: If a node cannot or must not run workers: others there would fail as well.
            RayTaskError: If the app cannot be built: other workers would fail as well. The worker
                stays in the pool for the next app.
        """
        if not self._starting:
            return []
        ready, _ = ray.wait(list(self._starting), timeout=timeout_s)
        joined = []
        for ref in ready:
            worker = self._starting.pop(ref)
            try:
                self._cohort = ray.get(ref)
            except RayTaskError:
                self.workers.append(worker)
                raise
            except RayError as fault:
                if isinstance(fault, RayActorError) and fault.actor_init_failed:
                    raise _unfit_node(str(fault)) from None
                self._failed_starts.append(str(fault))
                if len(self._failed_starts) < START_ATTEMPTS * self.n_workers:
                    self._start()
            else:
                self._failed_starts = []
                self._late.discard(worker)
                self.workers.append(worker)
                joined.append(worker)
        return joined

    def replace(self, worker: Any) -> None:
        """Give up a worker that died or hangs, and start another."""
        if worker in self.workers:
            self.workers.remove(worker)
            self._slots.pop(worker, None)  # not reused: it may still write
            ray.kill(worker)
            self._start()

    def replace_dead(self, idle: Iterable[Any]) -> list[Any]:
        """Replace those of some idle workers that do not answer, and return these.

        Workers die together if their node does; a client handed to a dead worker would seem to have
        killed it.
        """
        answers = {worker.idle.remote(): worker for worker in idle}
        if answers:
            ray.wait(list(answers), num_returns=len(answers), timeout=ANSWER_TIMEOUT_S)
        dead = []
        for ref, worker in answers.items():
            try:
                ray.get(ref, timeout=0)
            except RayError:
                self.replace(worker)
                dead.append(worker)
        return dead

    def slots_of(self, worker: Any) -> SharedSlots | None:
        """Return a worker's slots for replies; None if the system has none."""
        if worker not in self._slots:
            try:
                self._slots[worker] = SharedSlots(_node())
            except (AttributeError, OSError):  # not Linux, or too many open files
                self._slots[worker] = None
        return self._slots[worker]

    def _start(self) -> None:
        worker = self._actor.remote(-(-self.n_workers // max(1, self.n_gpus)), self._wanted)
        ready = worker.prepare.remote(*self._prepare) if self._prepare else worker.idle.remote()
        self._starting[ready] = worker
