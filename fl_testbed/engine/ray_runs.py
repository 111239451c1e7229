"""Runs on a Ray pool: whole runs side by side, or one run's clients spread over the workers."""

import pickle
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import ray
from flwr.clientapp import ClientApp
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError
from rich.text import Text

from fl_testbed.data import Dataset
from fl_testbed.engine.assembly import build_client_app, build_federation
from fl_testbed.engine.datasets import DatasetCache
from fl_testbed.engine.local_ray import ray_to_itself
from fl_testbed.engine.memory import fits_side_by_side
from fl_testbed.engine.placement import check_device, largest_cohort, training_memory
from fl_testbed.engine.ray_grid import RayGrid
from fl_testbed.engine.ray_pool import RayPool
from fl_testbed.engine.rounds import Run
from fl_testbed.engine.run_folder import Record, State
from fl_testbed.engine.run_writer import RunWriter
from fl_testbed.scenario import AnyScenario, EngineSpec, Scenario
from fl_testbed.scenario.own_specs import fresh_code

BACKPRESSURE = 4  # rounds that a worker may be ahead of the writer
ATTEMPTS = 3  # before a run whose worker dies each time is given up


def run_on_ray(writers: Sequence[RunWriter], datasets: DatasetCache, engine: EngineSpec) -> None:
    """Run scenarios on Ray, which is started once for all of them."""
    with ray_to_itself(writer.scenario for writer in writers):
        pool = RayPool(engine.n_workers, engine.ray_address, gpus=engine.device != "cpu")
        check_device(writers[0].scenario, pool.n_gpus)
        if _side_by_side(writers, datasets, engine, pool.n_workers):
            _run_side_by_side(writers, datasets, pool)
        else:
            for writer in writers:
                with writer.survived(), fresh_code(writer.scenario) as scenario:
                    try:
                        _run_spread(writer, scenario, datasets.get(scenario), pool)
                    except RayTaskError as fault:  # as text it is a whole traceback
                        writer.fail(fault.cause, _remote_traceback(fault))


def _side_by_side(
    writers: Sequence[RunWriter], datasets: DatasetCache, engine: EngineSpec, n_workers: int
) -> bool:
    """Whether whole runs go side by side. This needs no messages, and pays if there are enough runs
    and memory for them; the scenario may decide otherwise."""
    if not writers[0].kind.spreads:
        return True
    if engine.parallel != "auto":
        return engine.parallel == "runs"
    scenarios = [writer.scenario for writer in writers if isinstance(writer.scenario, Scenario)]
    return len(writers) >= max(2, n_workers) and fits_side_by_side(scenarios, datasets, n_workers)


def _client_app(content: bytes, n_workers: int, dataset: Dataset) -> ClientApp:
    scenario: Scenario = pickle.loads(content)
    memory = training_memory(scenario.engine)
    largest = largest_cohort(scenario, memory.device, n_workers)
    return build_client_app(scenario, build_federation(scenario, dataset), memory, largest)


def _run_spread(writer: RunWriter, scenario: AnyScenario, dataset: Dataset, pool: RayPool) -> None:
    assert isinstance(scenario, Scenario)
    # Pickled before the user's own code does anything.
    content = cloudpickle.dumps(scenario)  # pyright: ignore[reportPrivateImportUsage]
    federation = build_federation(scenario, dataset)
    build = partial(_client_app, content, pool.n_workers)
    cohort = pool.prepare(build, dataset, scenario.torch_threads)
    grid = RayGrid(
        pool,
        cohort,
        scenario.engine.client_timeout_s,
        work_of=federation.partition.size,
        on_event=writer.folder.log,
    )
    writer.write(Run(scenario, federation, grid).rounds(*writer.begin(dataset)))


def _remote_traceback(fault: RayTaskError) -> str:
    """Return the worker's traceback, without the colours that Ray adds."""
    return Text.from_ansi(str(fault)).plain


class _Stream:
    """A run on one worker, and where it stands."""

    def __init__(self, writer: RunWriter) -> None:
        self.writer = writer
        self.attempts = 0
        """How many workers have died over this run since its last new round."""
        self.furthest = -1
        self.position: tuple[int, State | None] | None = None
        self.worker: Any = None
        self.refs: Any = None

    def start(self, worker: Any, dataset: Dataset, data: list[Any]) -> None:
        """Begin the run on a worker, or continue it after the last recorded round."""
        if self.position is None:
            self.position = self.writer.begin(dataset)
        self.worker = worker
        method = worker.stream.options(
            num_returns="streaming", _generator_backpressure_num_objects=BACKPRESSURE
        )
        with fresh_code(self.writer.scenario) as scenario:
            self.refs = method.remote(self.writer.kind.records, data, scenario, *self.position)


def _run_side_by_side(writers: Sequence[RunWriter], datasets: DatasetCache, pool: RayPool) -> None:
    waiting = deque(_Stream(writer) for writer in writers)
    streams: dict[Any, _Stream] = {}

    def start(worker: Any) -> None:
        stream = waiting.popleft()
        with stream.writer.survived():
            dataset = datasets.get(stream.writer.scenario)
            stream.start(worker, dataset, pool.share(dataset))
            streams[stream.refs] = stream
            return
        idle.append(worker)

    pool.wait_for_workers()
    idle = deque(pool.workers)
    while waiting or streams:
        idle.extend(pool.join_started())
        while waiting and idle:
            start(idle.popleft())
        if not streams:
            pool.wait_for_workers()
            idle.extend(worker for worker in pool.workers if worker not in idle)
            continue
        ready: list[Any] = ray.wait(list(streams), timeout=1.0)[0]
        for refs in ready:
            stream = streams[refs]
            try:
                record = cast(Record, ray.get(next(refs)))
            except StopIteration:
                with stream.writer.survived():
                    stream.writer.finish()
                idle.append(stream.worker)
            except RayTaskError as fault:
                stream.writer.fail(fault.cause, _remote_traceback(fault))
                idle.append(stream.worker)
            except RayError as fault:
                pool.replace(stream.worker)
                for dead in pool.replace_dead(idle):
                    idle.remove(dead)
                stream.attempts += 1
                if stream.attempts >= ATTEMPTS:
                    stream.writer.fail(fault, f"its worker died {ATTEMPTS} times")
                else:
                    stream.writer.folder.log(
                        f"worker lost ({type(fault).__name__}): the run goes on elsewhere"
                    )
                    if not stream.writer.scenario.can_resume:
                        stream.position = None  # from the start
                    waiting.appendleft(stream)
            else:
                with stream.writer.survived():
                    stream.writer.record(record)
                    stream.position = (record.round_, record.state)
                    if record.round_ > stream.furthest:  # not a repeated one
                        stream.furthest, stream.attempts = record.round_, 0
                    continue
                pool.replace(stream.worker)  # it still computes rounds that cannot be written
            del streams[refs]
