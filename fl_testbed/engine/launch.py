"""Runs a list of scenarios and keeps what each did in its folder."""

import errno
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pandas as pd

from clients.device_memory import release_gpus
from fl_testbed.data import DataError, Dataset, Federation
from fl_testbed.engine.assembly import (
    build_client_app,
    build_federation,
    load_dataset,
    outlined_model,
)
from fl_testbed.engine.errors import PoolError, TakenError, TrackerError
from fl_testbed.engine.evaluation import Evaluation
from fl_testbed.engine.inline_grid import InlineGrid
from fl_testbed.engine.memory import check_memory
from fl_testbed.engine.placement import (
    check_device,
    gpus,
    largest_cohort,
    training_memory,
)
from fl_testbed.engine.rounds import RoundRecord, Run, State, summarise
from fl_testbed.engine.run_folder import COLUMNS, RunFolder
from fl_testbed.scenario import AnyScenario, Fault, Scenario, ScenarioError
from fl_testbed.scenario.initial_model import COPY, InitialModelError
from fl_testbed.scenario.own_code import OwnCodeError, own_specs
from strategies.aggregation import TooFewClientsError

S = TypeVar("S", bound=AnyScenario)
PLAN = "sweep.json"
DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # of all runs' disk


class Progress(Protocol):
    """Whoever wants to be told how the runs go."""

    def begin(self, scenario: AnyScenario, first_round: int) -> None:
        """Be told that a run begins."""

    def round(self, scenario: AnyScenario, round_: int, evaluation: Evaluation | None) -> None:
        """Be told that a round is done."""

    def note(self, text: str) -> None:
        """Be told of a decision of the engine; the same one may come from every run."""

    def end(self, scenario: AnyScenario, outcome: str) -> None:
        """Be told that a run is done."""


class Tracker(Protocol):
    """One run, as a program for experiments is told of it. Nothing is ever read back from there.

    Each of these may raise a TrackerError: the run goes on without the tracker.
    """

    def round(self, round_: int, tables: Mapping[str, pd.DataFrame], /) -> None:
        """Be told a round's rows of the run folder's tables, by file name, before they are written.

        A run that was killed may tell its last round again, the same, when it goes on.
        """

    def done(self, summary: Mapping[str, Any], /) -> None:
        """Be told the summary."""

    def failed(self, reason: str, /) -> None:
        """Be told why there is no summary."""


StartTracker = Callable[[AnyScenario, Path, int], Tracker]
"""Makes a tracker from a run's scenario, its folder, and the last round done, -1 if none."""


@dataclass(frozen=True)
class Options:
    """How to run: nothing here changes a result."""

    out: Path
    data_dir: Path | None
    command: str
    resume: bool = False
    trackers: Sequence[StartTracker] = ()
    how_to_resume: str = "--resume"
    """What whoever gave the command adds to it, to go on with unfinished runs."""


class Kind(Protocol):
    """What runs of one kind of scenario do: how they are checked, computed and summed up."""

    @property
    def spreads(self) -> bool:
        """Whether one run can be spread over several workers."""
        ...

    def columns(self, scenario: Any, /) -> Mapping[str, Sequence[str]]:
        """Return the tables of a run, and their columns."""
        ...

    def check(self, scenarios: Sequence[Any], datasets: "DatasetCache", /) -> None:
        """Raise ScenarioError if something is wrong that shows before the first run."""
        ...

    def records(
        self, dataset: Dataset, scenario: Any, done: int, state: State | None, /
    ) -> Iterator[Any]:
        """Compute a run and yield its records, of rounds after ``done``, in this process."""
        ...

    def summarise(self, folder: Path, scenario: Any, /) -> dict[str, Any]:
        """Return the summary of a run, from its tables alone."""
        ...


class DatasetCache:
    """Keeps the last datasets: variants of a scenario share them, and seeds where none is drawn."""

    KEPT = 2  # one that runs are on, and one that the next begin on

    def __init__(self, data_dir: Path | None) -> None:
        self._data_dir = data_dir
        self._loaded: dict[tuple[Any, ...], Dataset] = {}  # the last used last

    def get(self, scenario: AnyScenario) -> Dataset:
        """Return the scenario's dataset.

        Raises:
            DataError: If its files are not there or are broken.
        """
        key = scenario.dataset.identity(scenario.seed)
        dataset = self._loaded.pop(key, None)
        if dataset is None:
            while len(self._loaded) >= self.KEPT:
                del self._loaded[next(iter(self._loaded))]  # before the next takes its memory
            dataset = load_dataset(scenario, self._data_dir)
        self._loaded[key] = dataset
        return dataset


def by_dataset(scenarios: Sequence[S]) -> list[S]:
    """Return scenarios so that those of one dataset, of which few are kept, follow each other."""
    keys = [scenario.dataset.identity(scenario.seed) for scenario in scenarios]
    places = {key: place for place, key in reversed(list(enumerate(keys)))}  # the first of each
    order = sorted(range(len(keys)), key=lambda place: places[keys[place]])
    return [scenarios[place] for place in order]


def run_folder(out: Path, scenario: AnyScenario) -> RunFolder:
    """Return the folder of a run."""
    return RunFolder(out / scenario.name / scenario.variant / f"seed-{scenario.seed}")


def check_data(scenarios: Sequence[Scenario], datasets: DatasetCache) -> None:
    """Build every federation once, before anything runs, and keep none.

    Raises:
        ScenarioError: With a fault for each scenario that its data do not suffice for.
    """
    faults: dict[Fault, None] = {}  # ordered, without repetitions
    poisoned: set[tuple[str, str]] = set()
    for scenario in by_dataset(scenarios):
        run = scenario.name, scenario.variant
        try:
            # Of the seeds one alone tries the poison: to make some takes a training.
            checked_federation(scenario, datasets, poison=run not in poisoned)
        except ScenarioError as error:
            faults.update(dict.fromkeys(error.faults))
        poisoned.add(run)
    if faults:
        raise ScenarioError(list(faults))


def checked_federation(
    scenario: Scenario, datasets: DatasetCache, *, poison: bool = True
) -> Federation:
    """Return a scenario's federation, for which there are data enough.

    Args:
        scenario: The scenario.
        datasets: Where its dataset is.
        poison: Whether to see also that attackers can poison what they hold.

    Raises:
        ScenarioError: If there are not.
    """
    try:
        federation = build_federation(scenario, datasets.get(scenario))
        outlined_model(scenario, federation.dataset)  # may not take such inputs
        for ids, _ in scenario.attackers_by_id if poison else ():
            for attacker in ids[:1]:
                federation.shard(attacker)  # a trigger may not fit, or examples be missing
    except DataError as fault:
        faults = [Fault(scenario.name, "dataset", str(fault))]
    except InitialModelError as fault:
        faults = [Fault(scenario.name, "init", text) for text in fault.texts]
    except OwnCodeError as fault:
        faults = [Fault("", "", str(fault))]
    except ValueError as fault:
        faults = [Fault(scenario.name, "poison", str(fault))]
    else:
        return federation
    raise ScenarioError(faults)


def check_folders(scenarios: Sequence[AnyScenario], options: Options) -> list[AnyScenario]:
    """Return the scenarios that are still to run, in order.

    Raises:
        ScenarioError: If there can be no such folder, or it holds another scenario's run, or an
            unfinished one that a resume would go on with.
    """
    left, faults = [], []
    for scenario in scenarios:
        folder = run_folder(options.out, scenario)
        file = next((p for p in (folder.path, *folder.path.parents) if p.is_file()), None)
        if file is not None:
            text = "is a file where a folder is needed: choose another --out, or move it away"
            faults.append(Fault(str(file), "", text))
            continue
        there = folder.read("scenario.yaml")
        if there is None:
            left.append(scenario)
        elif there != scenario.to_yaml():
            text = "holds a run of another scenario: choose another --out, or remove the folder"
            faults.append(Fault(str(folder.path), "", text))
        elif folder.read("summary.json") is None:
            left.append(scenario)
            if folder.has_checkpoint and not scenario.can_resume:
                text = (
                    "holds an unfinished run, which cannot go on in the middle: its strategy has "
                    "no state_dict, or Flower's engine keeps what its clients remember. Remove "
                    "the folder to run it again"
                )
                faults.append(Fault(str(folder.path), "", text))
            elif folder.has_checkpoint and not options.resume:
                how = options.how_to_resume
                text = f"holds an unfinished run: add {how} to go on, or remove the folder"
                faults.append(Fault(str(folder.path), "", text))
    if faults:
        raise ScenarioError(list(dict.fromkeys(faults)))
    return left


class Federated:
    """Federated scenarios."""

    spreads = True

    def columns(self, scenario: Scenario) -> Mapping[str, Sequence[str]]:
        """Return the tables of a run, and their columns."""
        del scenario
        return COLUMNS

    def check(self, scenarios: Sequence[Scenario], datasets: DatasetCache) -> None:
        """Check that data and memory suffice."""
        check_data(scenarios, datasets)
        # Seeds cost the same memory: the last of each variant, whose datasets are still there.
        last = {(s.name, s.variant): s for s in by_dataset(scenarios)}
        check_memory(list(last.values()), datasets)

    def records(
        self, dataset: Dataset, scenario: Scenario, done: int, state: State | None
    ) -> Iterator[RoundRecord]:
        """Run a scenario in this process."""
        return inline_rounds(dataset, scenario, done, state)

    def summarise(self, folder: Path, scenario: Scenario) -> dict[str, Any]:
        """Return the summary of a run."""
        return summarise(folder, scenario)


def launch(
    scenarios: Sequence[AnyScenario],
    options: Options,
    progress: Progress,
    kind: Kind = Federated(),
    compute: "Compute | None" = None,
) -> list[str]:
    """Run scenarios of one kind (federated by default), on the engine that they share.

    Those that are done already are skipped, and one's failure ends no other.

    Args:
        scenarios: The runs.
        options: How to run them.
        progress: Is told how they go.
        kind: What runs of this kind do.
        compute: Computes one run and writes it, in place of their engine.

    Returns:
        What went wrong, a line for each run that failed.

    Raises:
        ScenarioError: If something is wrong that shows before the first run.
        OSError: If the disk is full or broken: what follows would fail as well.
        PoolError: If there are no workers to run on.
    """
    datasets = DatasetCache(options.data_dir)
    left = by_dataset(check_folders(scenarios, options))
    kind.check(left, datasets)
    write_plan(scenarios, options)
    unfinished = set(map(id, left))
    for scenario in scenarios:
        if id(scenario) not in unfinished:
            progress.end(scenario, "done before")
    if not left:
        return []
    writers = [RunWriter(scenario, options, progress, kind) for scenario in left]
    try:
        _run(writers, datasets, options, compute)
    finally:  # a notebook goes on after a Ctrl-C
        for writer in writers:
            writer.folder.release()
    return failures(writers)


def failures(writers: Sequence["RunWriter"]) -> list[str]:
    """Return a line for each run that failed, or that another command has in hand."""
    return [
        f"{writer.folder.path}: {writer.failure}"
        for writer in writers
        if writer.failure is not None
    ]


def _run(
    writers: Sequence["RunWriter"],
    datasets: DatasetCache,
    options: Options,
    compute: "Compute | None",
) -> None:
    engine = writers[0].scenario.engine
    if compute is None and engine.kind == "ray":
        from fl_testbed.engine.ray_runs import run_on_ray  # inline runs need no Ray

        run_on_ray(writers, datasets, engine)
        return
    if compute is None:  # else, as on Ray, clients may have other devices
        check_device(writers[0].scenario, len(gpus()))
        compute = _on_flower(options) if engine.kind == "flower" else _inline
    for writer in writers:
        with writer.survived():
            compute(writer, datasets.get(writer.scenario))


def _inline(writer: "RunWriter", dataset: Dataset) -> None:
    writer.write(writer.kind.records(dataset, writer.scenario, *writer.begin()))


def _on_flower(options: Options) -> "Compute":
    from fl_testbed.engine.flower_engine import run_on_flower  # it brings Ray

    return lambda writer, dataset: run_on_flower(writer, dataset, options.data_dir)


def write_plan(scenarios: Sequence[AnyScenario], options: Options) -> None:
    """Note which runs belong to each sweep, in order: a comparison shows those that are missing.

    Runs of earlier commands stay in the plan as long as their folders are there.
    """
    for name in dict.fromkeys(scenario.name for scenario in scenarios):
        folder = RunFolder(options.out / name)
        runs = [(item.variant, item.seed) for item in scenarios if item.name == name]
        earlier = json.loads(folder.read(PLAN) or "{}").get("runs", [])
        runs += [
            (variant, seed)
            for variant, seed in earlier
            if (variant, seed) not in runs and (folder.path / variant / f"seed-{seed}").exists()
        ]
        folder.write_json(PLAN, {"command": options.command, "runs": runs})


class RunWriter:
    """Writes one run's folder from the records that the run yields, wherever it computes."""

    def __init__(
        self, scenario: AnyScenario, options: Options, progress: Progress, kind: Kind
    ) -> None:
        self.scenario, self.kind = scenario, kind
        self.folder = run_folder(options.out, scenario)
        self._options, self._progress = options, progress
        self.failure: str | None = None
        """Why there is no summary, if there is none."""
        self._trackers: list[Tracker] = []

    def begin(self) -> tuple[int, State | None]:
        """Open the folder; return the last round that is recorded in it, and its state.

        Raises:
            TakenError: If another command has it, or had it since :func:`check_folders` looked.
        """
        folder, scenario = self.folder, self.scenario
        if folder.claim():
            self._look_again()
        resumed = self._options.resume and scenario.can_resume and folder.has_checkpoint
        folder.write("scenario.yaml", scenario.to_yaml())
        for own in own_specs(scenario):
            if own.code.source is not None:  # beside the scenario, so that this can be run again
                folder.write_bytes(own.code.path.name, own.code.source)
        if scenario.init is not None:
            folder.write_bytes(COPY, scenario.init.content)
            folder.log(f"starts from {scenario.init.source}")
        self._environment = environment(scenario, self._options.command)
        folder.write_json("environment.json", self._environment)
        if resumed:
            round_, state = folder.resume()
            folder.log(f"resumed after round {round_}")
        else:
            folder.start(self.kind.columns(scenario))
            round_, state = -1, None
        self._progress.begin(scenario, max(0, round_))
        self._trackers = []
        for start in self._options.trackers:
            with self._untracked_on_error():
                self._trackers.append(start(scenario, folder.path, round_))
        self._state = state
        return round_, state

    def _look_again(self) -> None:
        """See what another command has made of the folder before it was this one's."""
        try:
            left = check_folders([self.scenario], self._options)
        except ScenarioError as error:
            raise TakenError(error.faults[0].text) from None
        if not left:
            raise TakenError

    @contextmanager
    def survived(self) -> Iterator[None]:
        """Record what goes wrong inside as this run's failure, unless it concerns all runs."""
        try:
            yield
        except PoolError:
            raise
        except TakenError as fault:
            self.folder.release()
            self.failure = str(fault) or None
            self._progress.end(self.scenario, self.failure or "done before")
        except Exception as fault:
            if isinstance(fault, OSError) and fault.errno in DISK_FAULTS:
                raise
            self.fail(fault, "".join(traceback.format_exception(fault)))

    def fail(self, fault: BaseException, traceback_text: str) -> None:
        """Record that the run failed, and why."""
        text = str(fault)
        if not isinstance(fault, TooFewClientsError | OwnCodeError):  # these say what to do
            text = f"{type(fault).__name__}: {text}"
        elif isinstance(fault, TooFewClientsError):
            text += " (strategy.on_too_few: skip_round would go on)"
        reason, self._state = " ".join(text.split()), None
        self.failure = f"the run failed: {reason}"
        with suppress(OSError):  # it may be this folder that cannot be written
            self.folder.fail(reason, traceback_text)
        for tracker in self._trackers:
            with self._untracked_on_error():
                tracker.failed(reason)
        self._progress.end(self.scenario, f"failed: {reason}")

    def write(self, records: Iterable[RoundRecord]) -> None:
        """Write records as they come, and the summary after the last."""
        for record in records:
            self.record(record)
        self.finish()

    def record(self, record: RoundRecord) -> None:
        """Write one record."""
        if self._trackers:
            columns = self.kind.columns(self.scenario)
            tables = {
                name: pd.DataFrame(rows, columns=list(columns[name]))
                for name, rows in record.tables.items()
            }
            for tracker in list(self._trackers):
                with self._untracked_on_error(tracker):
                    tracker.round(record.round_, tables)
        self.folder.record(record.round_, record.tables, record.state, record.updates)
        self._state = record.state
        self._note(record.notes)
        self._progress.round(self.scenario, record.round_, record.evaluation)

    @contextmanager
    def _untracked_on_error(self, *trackers: Tracker) -> Iterator[None]:
        """Go on without a tracker that fails: it is no part of the result."""
        try:
            yield
        except TrackerError as fault:
            self._trackers = [tracker for tracker in self._trackers if tracker not in trackers]
            text = f"{fault}: runs go on untracked"
            self.folder.log(text)
            self._progress.note(text)

    def _note(self, decisions: Sequence[str]) -> None:
        for text in decisions:
            self._environment["decisions"].append(text)
            self.folder.log(text)
            self._progress.note(text)
        if decisions:
            self.folder.write_json("environment.json", self._environment)

    def finish(self) -> None:
        """Write the final model and the summary."""
        state, self._state = self._state, None  # a sweep has thousands of these
        assert state is not None
        self.folder.close()
        model = {
            name.removeprefix("arrays/"): tensor
            for name, tensor in state.items()
            if name.startswith("arrays/")
        }
        summary = self.kind.summarise(self.folder.path, self.scenario)
        self.folder.finish(model, summary)
        for tracker in self._trackers:
            with self._untracked_on_error():
                tracker.done(summary)
        self._progress.end(self.scenario, "done")


Compute = Callable[[RunWriter, Dataset], None]
"""Computes a run and writes it."""


def inline_rounds(
    dataset: Dataset,
    scenario: Scenario,
    done: int,
    state: State | None,
) -> Iterator[RoundRecord]:
    """Run a scenario in this process."""
    federation = build_federation(scenario, dataset)
    memory = training_memory(scenario.engine)
    app = build_client_app(
        scenario,
        federation,
        memory,
        largest_cohort(scenario, memory.device),
        stays_on_device=True,
    )
    grid = InlineGrid(app, scenario.engine.client_timeout_s)
    try:
        yield from Run(scenario, federation, grid).rounds(done, state)
    finally:
        del app, grid  # what they hold of a GPU goes back before the next run
        release_gpus()


def environment(scenario: AnyScenario, command: str) -> dict[str, Any]:
    """Return what a reader needs to judge or repeat a run besides its scenario."""
    packages = ("fl-testbed", "flwr", "ray", "torch", "torchvision", "numpy")
    return {
        "command": command,
        "engine": scenario.engine.model_dump(mode="json"),
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpus": gpus(),
        "decisions": [],
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    result = subprocess.run(
        [git, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or None
