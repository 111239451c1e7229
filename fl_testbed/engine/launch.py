"""Runs a list of scenarios and keeps what each did in its folder."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from fl_testbed.data import DataError, Dataset, Federation
from fl_testbed.engine.assembly import build_client_app, build_federation, load_dataset
from fl_testbed.engine.evaluation import Evaluation
from fl_testbed.engine.grid import ClientGrid
from fl_testbed.engine.inline_grid import InlineGrid
from fl_testbed.engine.rounds import Run
from fl_testbed.engine.run_folder import RunFolder
from fl_testbed.scenario import Fault, Scenario, ScenarioError


class Progress(Protocol):
    """Whoever wants to be told how the runs go."""

    def begin(self, scenario: Scenario, first_round: int) -> None:
        """Be told that a run begins."""

    def round(self, scenario: Scenario, round_: int, evaluation: Evaluation | None) -> None:
        """Be told that a round is done."""

    def end(self, scenario: Scenario, outcome: str) -> None:
        """Be told that a run is done."""


@dataclass(frozen=True)
class Options:
    """How to run: nothing here changes a result."""

    out: Path
    data_dir: Path | None
    command: str
    resume: bool = False


class DatasetCache:
    """Keeps the last dataset: variants of a scenario share it."""

    def __init__(self, data_dir: Path | None) -> None:
        self._data_dir = data_dir
        self._last: tuple[tuple[Any, ...], Dataset] | None = None

    def get(self, scenario: Scenario) -> Dataset:
        """Return the scenario's dataset.

        Raises:
            DataError: If its files are not there or are broken.
        """
        key = (scenario.dataset.kind, scenario.seed)
        if self._last is None or self._last[0] != key:
            self._last = None  # let go of the old one before loading the new
            self._last = (key, load_dataset(scenario, self._data_dir))
        return self._last[1]


def run_folder(out: Path, scenario: Scenario) -> RunFolder:
    """Return the folder of a run."""
    return RunFolder(out / scenario.name / scenario.variant / f"seed-{scenario.seed}")


def check_data(scenarios: Sequence[Scenario], datasets: DatasetCache) -> list[Federation]:
    """Build every federation once, before anything runs.

    Raises:
        ScenarioError: With a fault for each scenario that its data do not suffice for.
    """
    federations, faults = [], {}
    for scenario in scenarios:
        try:
            federations.append(build_federation(scenario, datasets.get(scenario)))
        except DataError as fault:
            faults[str(fault)] = Fault(scenario.name, "dataset", str(fault))
    if faults:
        raise ScenarioError(list(faults.values()))
    return federations


def check_folders(scenarios: Sequence[Scenario], options: Options) -> list[Scenario]:
    """Return the scenarios that are still to run, in order.

    Raises:
        ScenarioError: If a folder holds another scenario's run, or an unfinished one that
            ``--resume`` would go on with.
    """
    left, faults = [], []
    for scenario in scenarios:
        folder = run_folder(options.out, scenario)
        if folder.read("scenario.yaml") is None:
            left.append(scenario)
        elif folder.read("scenario.yaml") != scenario.to_yaml():
            text = "holds a run of another scenario: choose another --out, or remove the folder"
            faults.append(Fault(str(folder.path), "", text))
        elif folder.read("summary.json") is None:
            left.append(scenario)
            if folder.has_checkpoint and not options.resume:
                text = "holds an unfinished run: add --resume to go on, or remove the folder"
                faults.append(Fault(str(folder.path), "", text))
    if faults:
        raise ScenarioError(faults)
    return left


def launch(scenarios: Sequence[Scenario], options: Options, progress: Progress) -> None:
    """Run scenarios one after the other; those that are done already are skipped.

    Raises:
        ScenarioError: If something is wrong that shows before the first run.
    """
    datasets = DatasetCache(options.data_dir)
    check_data(scenarios, datasets)
    left = check_folders(scenarios, options)
    for scenario in scenarios:
        if scenario not in left:
            progress.end(scenario, "done before")
    if not left:
        return
    with _grids(left[0]) as grid_for:
        for scenario in left:
            federation = build_federation(scenario, datasets.get(scenario))
            _run_one(scenario, federation, grid_for(scenario, federation), options, progress)


def _run_one(
    scenario: Scenario,
    federation: Federation,
    grid: ClientGrid,
    options: Options,
    progress: Progress,
) -> None:
    folder = run_folder(options.out, scenario)
    folder.write("scenario.yaml", scenario.to_yaml())
    folder.write_json("environment.json", environment(scenario, options.command))
    resume = options.resume and folder.has_checkpoint
    progress.begin(scenario, 0)
    Run(scenario, federation, grid, folder).execute(
        partial(progress.round, scenario), resume=resume
    )
    progress.end(scenario, "done")


GridFor = Callable[[Scenario, Federation], ClientGrid]


@contextmanager
def _grids(scenario: Scenario) -> Iterator[GridFor]:
    """Yield what makes a grid for each run; Ray starts once for all of them."""
    engine = scenario.engine
    if engine.kind == "inline":
        yield lambda run, federation: InlineGrid(build_client_app(run, federation))
        return
    from fl_testbed.engine.ray_grid import RayPool  # Ray need not be there for inline runs

    pool = RayPool(None if engine.workers == "auto" else engine.workers, engine.ray_address)
    try:
        yield lambda run, federation: pool.grid(
            partial(build_client_app, run), federation, run.torch_threads
        )
    finally:
        pool.close()


def environment(scenario: Scenario, command: str) -> dict[str, Any]:
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
