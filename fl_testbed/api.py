"""The API for notebooks: run a scenario and get its results as pandas tables."""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

import pandas as pd
import yaml

from fl_testbed.console import RunProgress, make_console
from fl_testbed.engine.earlier_runs import run_folder
from fl_testbed.engine.errors import PoolError
from fl_testbed.engine.launch import launch
from fl_testbed.engine.options import Options
from fl_testbed.engine.replay import replay as replay_runs
from fl_testbed.engine.threads import threads_given_back
from fl_testbed.kinds import kind_of
from fl_testbed.metrics import read_table
from fl_testbed.report.comparison import UnknownVariantError, compare
from fl_testbed.report.formats import comma_separated, markdown
from fl_testbed.report.results import RunResult, Status, find_runs
from fl_testbed.scenario import AnyScenario, Fault, ScenarioError, load_files
from fl_testbed.scenario.draft import sets_seed
from fl_testbed.scenario.faults import options_called, renamed, short
from fl_testbed.scenario.yaml_floats import Dumper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "PoolError",
    "Results",
    "RunFailedError",
    "ScenarioError",
    "UnknownVariantError",
    "load_results",
    "replay",
    "run",
]


def __dir__() -> list[str]:
    """List the names that a notebook offers for completion."""
    return __all__


PathLike = str | Path
IN_PYTHON = {
    "--set": "settings",
    "--variant": "variants",
    "--out": "out",
    "--redo": "redo=True",
    "--resume": "resume=True",
    "pass --data-dir DIR": "pass data_dir=DIR",
    "with --data-dir .": "with data_dir='.'",
}
"""How faults name each option of the command line when called from Python."""
P = ParamSpec("P")


class RunFailedError(RuntimeError):
    """Some runs failed. Completed work is kept: ``run(..., resume=True)`` continues from it."""


@dataclass(frozen=True, repr=False)
class Results:
    """The results of runs; a notebook displays them as the tables that the command prints."""

    runs: list[RunResult]
    """The runs, one for each variant and seed, each with its folder and status."""

    def __repr__(self) -> str:
        """Return a short text, in place of all tables of all runs."""
        return f"Results({len(self.runs)} runs)"

    def _repr_markdown_(self) -> str | None:
        """Return the tables that the command prints, for a notebook cell that ends with results."""
        with suppress(ScenarioError):  # a table cannot hold the same run twice
            return markdown(compare(self.runs)) if self.runs else None
        return None

    def pictures(self) -> "dict[str, Figure]":
        """Return the report's figures by name: ``suppression``, ``weights``, ``groups``, …

        After ``%matplotlib inline``, a notebook shows a figure that is the last value of a cell.
        """
        from fl_testbed.report.gallery import pictures  # imports matplotlib, which few calls need

        return {picture.name: picture.figure for picture in pictures(compare(self.runs))}

    def compare(self, baseline: str | None = None) -> pd.DataFrame:
        """Return one row per variant: means over seeds, and half the width of 95 % intervals.

        Args:
            baseline: A variant to compare the others with, seed by seed.

        Raises:
            UnknownVariantError: If there is no such variant.
        """
        if not self.runs:
            return pd.DataFrame()
        text = comma_separated(compare(self.runs, baseline))
        return read_table(io.StringIO(text)).set_index("variant").dropna(axis=1, how="all")

    @property
    def rounds(self) -> pd.DataFrame:
        """One row per round: accuracy, worst group, attack success, loss."""
        return self.table("rounds")

    @property
    def groups(self) -> pd.DataFrame:
        """One row per round and group: its number of examples and its accuracy."""
        return self.table("groups")

    @property
    def clients(self) -> pd.DataFrame:
        """One row per round and sampled client: role, weight, contribution, suspicion, …"""
        return self.table("clients")

    def table(self, name: str) -> pd.DataFrame:
        """Return one of the run folders' CSV files, such as ``attacks``, for all runs that have it.

        Returns:
            Its rows, with the run's variant and seed as first columns.

        Raises:
            FileNotFoundError: If no run has it.
        """
        parts = []
        for run in self.runs:
            path = run.folder / f"{name}.csv"
            if path.exists():
                part = read_table(path)
                part.insert(0, "variant", run.variant)
                part.insert(1, "seed", run.seed)
                parts.append(part)
        if not parts:
            raise FileNotFoundError(f"none of {len(self.runs)} runs has a {name}.csv")
        return pd.concat(parts, ignore_index=True)


def _called_from_a_notebook(function: Callable[P, Results]) -> Callable[P, Results]:
    """Restore thread limits afterwards, and drop our own frames from the traceback of a user's
    error: a notebook prints each with its source, 200 lines for an interrupted run."""

    @wraps(function)
    def called(*arguments: P.args, **named: P.kwargs) -> Results:
        try:
            with threads_given_back(), options_called(IN_PYTHON):
                return function(*arguments, **named)
        except (ScenarioError, PoolError) as fault:
            raise fault.with_traceback(None) from None
        except KeyboardInterrupt:
            text = "what is done is kept, and run(..., resume=True) goes on with unfinished runs"
            raise KeyboardInterrupt(text) from None

    return called


@_called_from_a_notebook
def run(
    scenario: PathLike | Sequence[PathLike],
    settings: Mapping[str, Any] | None = None,
    *,
    out: PathLike = "runs",
    data_dir: PathLike | None = None,
    engine: Literal["inline", "ray", "flower"] | None = None,
    resume: bool = False,
    redo: bool = False,
    variants: Sequence[str] = (),
    only: Callable[[AnyScenario], bool] | None = None,
) -> Results:
    """Run all variants and seeds of a scenario; those that are done already are not run again.

    Args:
        scenario: The YAML file, or several whose runs go side by side.
        settings: New values of any keys, as with ``--set``: ``{"training.lr": 0.2}``. Paths of
            your own code are relative to the current folder.
        out: Where run folders go.
        data_dir: The folder of datasets; ``FL_TESTBED_DATA`` of the environment by default.
        engine: Where clients run; the scenario's choice by default.
        resume: Continue unfinished runs, or finished ones for more rounds.
        redo: Where scenario or code has changed, run again and replace the earlier run.
        variants: Names of the variants to run; all by default.
        only: Says, given a run's scenario, whether to run it; by default all are run.

    Raises:
        ScenarioError: If the scenario or a setting is wrong.
        RunFailedError: If runs failed; the text says which, and why.
        PoolError: If there are no Ray workers to run on.
    """
    changes = dict(settings or {}) | ({} if engine is None else {"engine.kind": engine})
    texts = [f"{key}={_as_yaml(key, value)}" for key, value in changes.items()]
    files = [scenario] if isinstance(scenario, str | Path) else scenario
    asked = [variants] if isinstance(variants, str) else variants
    loaded = load_files([*map(Path, files)], texts, asked)
    scenarios = [s for s in loaded if only is None or only(s)]
    named = ", ".join(map(str, files))
    command = f"fl_testbed.api.run({named!r}, {dict(settings or {})!r})"
    options = Options(
        Path(out),
        _data_folder(data_dir),
        command,
        resume,
        redo,
        is_part=bool(asked) or only is not None or sets_seed(texts),
    )
    failures: list[str] = []
    if scenarios:
        with RunProgress(make_console(stderr=True), scenarios) as progress:
            failures = launch(scenarios, options, progress, kind_of(scenarios))
    if failures:
        raise RunFailedError(renamed("\n".join(failures), IN_PYTHON))
    return Results(find_runs(run_folder(Path(out), item).path for item in scenarios))


@_called_from_a_notebook
def replay(
    *folders: PathLike,
    settings: Mapping[str, Any] | None = None,
    out: PathLike = "replays",
    data_dir: PathLike | None = None,
    redo: bool = False,
) -> Results:
    """Apply other strategies to the very updates that runs recorded.

    Args:
        folders: Runs with ``record_updates``, or folders that hold some at any depth.
        settings: What to change, by dotted key: keys of the strategy, or ``variants`` of it.
        out: Where replays go.
        data_dir: The folder of datasets; ``FL_TESTBED_DATA`` of the environment by default.
        redo: Where something has changed, make the replay again and replace the earlier one.

    Raises:
        ScenarioError: If a run recorded nothing, or a setting changes more than the strategy.
    """
    texts = [f"{key}={_as_yaml(key, value)}" for key, value in (settings or {}).items()]
    done = [r.folder for r in load_results(*folders).runs if r.status is Status.DONE]
    options = Options(Path(out), _data_folder(data_dir), "", redo=redo)
    replays = replay_runs(done, texts, options)
    return Results(find_runs(folder for folder, _ in replays))


def _data_folder(data_dir: PathLike | None) -> Path | None:
    folder = data_dir or os.environ.get("FL_TESTBED_DATA")
    return Path(folder) if folder else None


def _as_yaml(key: str, value: object) -> str:
    try:
        return yaml.dump(value, Dumper=Dumper, sort_keys=False)  # variants keep their order
    except yaml.YAMLError:
        text = (
            f"needs plain Python numbers, text, lists and dicts, got {short(value)}: name code "
            "of yours by its file, my_rule.py:name"
        )
        raise ScenarioError(Fault("settings", key, text)) from None


def load_results(*folders: PathLike) -> Results:
    """Return the results of earlier runs.

    Args:
        folders: Run folders, or folders that hold some at any depth, such as ``runs/quickstart``.

    Raises:
        FileNotFoundError: If a folder is not there, or holds no run.
    """
    paths = [Path(folder) for folder in folders]
    for path in paths:
        if not path.is_dir():
            raise FileNotFoundError(f"{path}: no such folder")
    runs = find_runs(paths)
    if not runs:
        raise FileNotFoundError(f"no run in {', '.join(map(str, paths))}")
    return Results(runs)
