"""Reading run folders. Little is read of each, so that a thousand take only a moment."""

import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fl_testbed.scenario import AnyScenario, Fault, ScenarioError
from fl_testbed.scenario.faults import short
from fl_testbed.scenario.leaves import leaves
from fl_testbed.scenario.places import PLAN, parts_of, place_of_run

SEED_FOLDER = re.compile(r"seed-(\d+)")
LEFT_BY_RUNS = {"events.log", "summary.json"}
"""Files that show a folder with a ``scenario.yaml`` to be a run's, and not a scenario still to be
run; a run that failed before it began has one of them beside ``failure.json`` alone."""
RUN_AGAIN = "remove the file, then run the scenario again"
RUN_ANEW = "remove its folder, then run the scenario again"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, faster


class Status(StrEnum):
    """How far a run has got."""

    DONE = "done"
    FAILED = "failed"
    UNFINISHED = "unfinished"
    """Begun: still running, or interrupted."""
    WAITING = "waiting"
    """Planned by the sweep, but not begun."""


class RunResult(NamedTuple):
    """One run, as far as it has got."""

    folder: Path
    name: str
    variant: str
    seed: int
    status: Status
    reason: str
    """Why it failed, if it did."""
    figures: dict[str, float]
    """Every number of its summary by its path with dots; null is NaN. Empty unless it is done."""

    @property
    def key(self) -> tuple[str, str, int]:
        """What identifies a run, whatever folder it lies in."""
        return self.name, self.variant, self.seed

    @property
    def swept(self) -> dict[str, str]:
        """The swept values in its variant's name, by the last part of their keys."""
        parts = (part.partition("=") for part in parts_of(self.variant))
        return {key: value for key, sign, value in parts if sign}


def find_runs(paths: Iterable[Path]) -> list[RunResult]:
    """Return the runs in folders, at any depth, in the order of their sweeps' plans.

    If a whole sweep is among the folders, so are the runs that it planned and that are not there
    yet.
    """
    found: dict[Path, RunResult] = {}
    for path in paths:
        for folder in _walk(path):
            place = folder.resolve()
            if place not in found:
                found[place] = _run(folder)
    return list(_once_planned(found.values()))


def _once_planned(runs: Collection[RunResult]) -> Iterator[RunResult]:
    """Leave out runs that are only planned in one folder but exist in another, as when several
    machines ran a part of a sweep each."""
    there = {run.key for run in runs if run.status is not Status.WAITING}
    for run in runs:
        if run.status is not Status.WAITING or run.key not in there:
            there.add(run.key)
            yield run


def finished_runs(
    scenarios: Iterable[AnyScenario], out: Path
) -> Iterator[tuple[AnyScenario, RunResult]]:
    """Yield the scenarios whose runs are done, in their order, each with its run.

    Args:
        scenarios: Those that a file expands to.
        out: The folder of all runs.
    """
    asked = {(scenario.name, scenario.variant, scenario.seed): scenario for scenario in scenarios}
    runs = find_runs(out / name for name in dict.fromkeys(name for name, _, _ in asked))
    done = {run.key: run for run in runs if run.figures}
    yield from ((scenario, done[key]) for key, scenario in asked.items() if key in done)


def scenario_in(folder: Path) -> dict[str, Any]:
    """Return a run's resolved scenario as plain data."""
    path = folder / "scenario.yaml"
    with as_written(path):
        return dict(yaml.load(path.read_bytes(), LOADER) or {})


def noted_data(folder: Path) -> tuple[str, str] | None:
    """Return which data a run asked for, and the fingerprint of the data it got; None if its folder
    does not say, as with runs of earlier versions."""
    path = folder / "environment.json"
    with as_written(path):
        data = (read_json(path) or {}).get("data")
        return data and (json.dumps(data["of"], sort_keys=True), str(data["fingerprint"]))


def _walk(folder: Path, around: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield run folders, for sweeps first the planned ones; some may be yielded twice."""
    place = os.path.realpath(folder)
    if place in around:  # a link to one of its own parents
        return
    with os.scandir(folder) as entries:
        names = {entry.name: entry.is_dir() for entry in entries}
    if {"scenario.yaml", "failure.json"} & names.keys() and LEFT_BY_RUNS & names.keys():
        yield folder
        return
    if PLAN in names:
        yield from _planned(folder)
    for name in sorted(names, key=_natural):
        if names[name]:
            yield from _walk(folder / name, (*around, place))


def _natural(name: str) -> list[tuple[str, int]]:
    """Return a key that sorts names as people do: seed-2 before seed-10."""
    return [(text, int(number or -1)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def _planned(sweep: Path) -> list[Path]:
    with as_written(sweep / PLAN):
        runs = (read_json(sweep / PLAN) or {}).get("runs", [])
        return [place_of_run(sweep, variant, seed) for variant, seed in runs]


def _run(folder: Path) -> RunResult:
    whole = folder.resolve()
    seed = SEED_FOLDER.fullmatch(whole.name)
    place = (whole.parent.parent.name, whole.parent.name, int(seed[1]) if seed else 0)
    with as_written(folder / "summary.json"):
        summary = read_json(folder / "summary.json")
        if summary is not None:
            names = str(summary.get("name", place[0])), str(summary.get("variant", place[1]))
            seed_number = int(summary.get("seed", place[2]))
            return RunResult(folder, *names, seed_number, Status.DONE, "", numbers(summary))
    failure = read_json(folder / "failure.json")
    if failure is not None:
        reason = str(failure.get("reason", "no reason given"))
        return RunResult(folder, *place, Status.FAILED, reason, {})
    begun = (folder / "scenario.yaml").exists()
    return RunResult(folder, *place, Status.UNFINISHED if begun else Status.WAITING, "", {})


@contextmanager
def as_written(path: Path) -> Iterator[None]:
    """Guard the reading of a file in a run folder.

    Raises:
        ScenarioError: If it is not as runs write it: disks and editors may damage files.
    """
    remedy = RUN_AGAIN if path.suffix == ".json" else RUN_ANEW  # a plan's folder holds all runs
    try:
        yield
    except ScenarioError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as fault:
        text = f"is not what a run writes ({short(str(fault))}): {remedy}"
        raise ScenarioError(Fault(str(path), "", text)) from fault
    except yaml.YAMLError as fault:
        text = f"is not YAML ({short(str(fault))}): {RUN_ANEW}"
        raise ScenarioError(Fault(str(path), "", text)) from fault


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what a run folder's JSON file holds, or None if it is not there.

    Raises:
        ScenarioError: If it holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as fault:
        raise ScenarioError(Fault(str(path), "", f"is not JSON ({fault}): {RUN_AGAIN}")) from None
    if not isinstance(content, dict):
        raise ScenarioError(Fault(str(path), "", f"needs a mapping (key: value): {RUN_AGAIN}"))
    return content


def numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return every number of a summary by its path with dots; null is NaN."""
    return {
        key: math.nan if value is None else float(value)
        for key, value in leaves(summary)
        if value is None or isinstance(value, int | float)
    }
