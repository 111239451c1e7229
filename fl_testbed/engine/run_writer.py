"""One run of a command: what it leaves in its folder, and whoever is told of it."""

import errno
import json
import os
import platform
import re
import shutil
import subprocess
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import yaml

from fl_testbed.data import Dataset
from fl_testbed.engine.datasets import DatasetCache
from fl_testbed.engine.errors import NobodyHeardError, PoolError, TakenError, TrackerError
from fl_testbed.engine.installation import versions
from fl_testbed.engine.placement import gpus
from fl_testbed.engine.run_folder import Evaluated, Record, RunFolder, State
from fl_testbed.scenario import AnyScenario, Fault, ScenarioError
from fl_testbed.scenario.initial_model import COPY
from fl_testbed.scenario.leaves import leaves
from fl_testbed.scenario.naming import named
from fl_testbed.scenario.own_specs import own_specs
from fl_testbed.scenario.places import place_of_run
from fl_testbed.scenario.users_code import OwnCodeError
from strategies.aggregation import TooFewClientsError

DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # of all runs' disk
ENVIRONMENT = "environment.json"
N_NAMED = 3  # keys in which a scenario differs from the one before
NO_STATE = "its strategy has no state_dict, or Flower's engine keeps what its clients remember"


class Progress(Protocol):
    """Whoever wants to be told how the runs go."""

    def begin(self, scenario: AnyScenario, first_round: int) -> None:
        """Be told that a run begins."""

    def round(self, scenario: AnyScenario, round_: int, evaluation: Evaluated | None) -> None:
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
    redo: bool = False
    """Whether a run of another scenario, or one that cannot go on, makes room for a new one."""
    trackers: Sequence[StartTracker] = ()
    switch: str = "--{}"
    """How whoever gave the command writes ``resume`` or ``redo``."""
    is_part: bool = False
    """Whether some runs of a sweep were left out by name: they stay planned."""


class Kind(Protocol):
    """What runs of one kind of scenario do: how they are checked, computed and summed up."""

    @property
    def spreads(self) -> bool:
        """Whether one run can be spread over several workers."""
        ...

    def columns(self, scenario: Any, /) -> Mapping[str, Sequence[str]]:
        """Return the tables of a run, and their columns."""
        ...

    def check(self, scenarios: Sequence[Any], datasets: DatasetCache, /) -> None:
        """Raise ScenarioError if something is wrong that shows before the first run."""
        ...

    def records(
        self, dataset: Dataset, scenario: Any, done: int, state: State | None, /
    ) -> Iterator[Record]:
        """Compute a run and yield its records, of rounds after ``done``, in this process."""
        ...

    def summarise(self, folder: Path, scenario: Any, /) -> dict[str, Any]:
        """Return the summary of a run, from its tables alone."""
        ...


def run_folder(out: Path, scenario: AnyScenario) -> RunFolder:
    """Return the folder of a run."""
    return RunFolder(place_of_run(out / scenario.name, scenario.variant, scenario.seed))


def check_folders(
    scenarios: Sequence[AnyScenario], options: Options, *, claimed: bool = False
) -> list[AnyScenario]:
    """Return the scenarios that are still to run, in order; their folders may be claimed by now.

    Raises:
        ScenarioError: If there can be no such folder, or it holds another scenario's run, or an
            unfinished one, and the options do not say what to do with it.
    """
    left: list[AnyScenario] = []
    faults: dict[str, list[Path]] = {}
    resume, redo = map(options.switch.format, ("resume", "redo"))
    for scenario in scenarios:
        folder = run_folder(options.out, scenario)
        file = next((p for p in (folder.path, *folder.path.parents) if p.is_file()), None)
        if file is not None:
            text = "is a file where a folder is needed: choose another --out, or move it away"
            faults.setdefault(text, []).append(file)
            continue
        text, there = None, folder.read("scenario.yaml")
        if there is None:
            left.append(scenario)
        elif there != scenario.to_yaml():
            left.append(scenario)
            is_begun = _begins(there, scenario)
            if is_begun and folder.has_checkpoint and not (options.resume or options.redo):
                text = f"holds a run of fewer rounds: add {resume} to go on after them"
            elif not (options.redo or goes_on(folder, scenario, options)):
                apart = _apart(there, scenario.identity())
                lost = _why_lost(there, scenario)
                text = (
                    f"holds a run of another scenario{apart}{lost}: add {redo} to run it "
                    "again in its place, or choose another --out"
                )
        elif folder.read("summary.json") is None:
            left.append(scenario)
            if not folder.has_checkpoint:
                continue
            if not scenario.can_resume and not options.redo:
                text = (
                    f"holds an unfinished run, which cannot go on in the middle: {NO_STATE}. "
                    f"Add {redo} to run it again"
                )
            elif scenario.can_resume and not options.resume:
                text = f"holds an unfinished run: add {resume} to go on, or remove the folder"
        if text is not None:  # neither of which shall be done while it goes on
            taken = None if claimed else folder.taken()
            faults.setdefault(taken or text, []).append(folder.path)
    refuse(faults)
    return left


def refuse(faults: Mapping[str, Sequence[Path]]) -> None:
    """Raise ScenarioError if there are faults: of those that many runs have, the first is named."""
    told = []
    for text, paths in faults.items():
        others = len(set(paths)) - 1
        more = f" (and {others} more run{'s' * (others > 1)})" * (others > 0)
        told.append(Fault(f"{paths[0]}{more}", "", text))
    if told:
        raise ScenarioError(*told)


def goes_on(folder: RunFolder, scenario: AnyScenario, options: Options) -> bool:
    """Whether what a folder holds is gone on with: this run, or the same of fewer rounds."""
    asked = options.resume and scenario.can_resume and folder.has_checkpoint
    there = folder.read("scenario.yaml") or ""
    return asked and (there == scenario.to_yaml() or _begins(there, scenario))


def data_of(scenario: AnyScenario, dataset: Dataset) -> dict[str, Any]:
    """Return what a run's ``environment.json`` says of its data, and of what it asked for."""
    spec = scenario.dataset
    asked = spec.model_dump(mode="json", exclude={"minority"}, exclude_none=True)
    return {
        "fingerprint": dataset.fingerprint,
        "train": len(dataset.train),
        "test": len(dataset.test),
        "of": asked | ({"seed": scenario.seed} if spec.split_by_seed else {}),
    }


def other_data(folder: RunFolder, dataset: Dataset) -> str | None:
    """Say that a folder's run is on other data than these; None if it is not, or does not say."""
    try:
        there = json.loads(folder.read(ENVIRONMENT) or "{}")["data"]["fingerprint"]
    except (ValueError, LookupError, TypeError):  # an earlier version's, or somebody's own file
        return None
    if there == dataset.fingerprint:
        return None
    return f"a run on other data (fingerprint {there}, now {dataset.fingerprint})"


def _begins(there: str, scenario: AnyScenario) -> bool:
    """Whether a scenario differs from another in that it has fewer rounds, and in no figure."""
    shorter = _of_fewer_rounds(there, scenario)
    return shorter is not None and shorter.may_be_longer


def _why_lost(there: str, scenario: AnyScenario) -> str:
    """Say why what is there is not gone on with, if it is a run of fewer rounds."""
    shorter = _of_fewer_rounds(there, scenario)
    if shorter is None:
        return ""
    if not shorter.can_resume:
        return f" and cannot go on, as {NO_STATE}"
    if not shorter.may_be_longer:
        return " and cannot go on, as its last round was evaluated only because it was the last"
    return " and keeps nothing to go on from"


def _of_fewer_rounds(there: str, scenario: AnyScenario) -> AnyScenario | None:
    """Return the same scenario of fewer rounds, if that is what is there."""
    found = re.search(r"^rounds: (\d+)$", there, re.MULTILINE)
    if found is None or int(found[1]) >= scenario.rounds:
        return None
    shorter = scenario.model_copy(update={"rounds": int(found[1])})
    return shorter if shorter.to_yaml() == there else None


def _apart(there: str, wanted: dict[str, Any]) -> str:
    """Name the first keys in which two scenarios differ; of own code that was changed, its file."""
    other = dict(leaves(wanted))
    try:
        one = dict(leaves(yaml.safe_load(there)))
    except yaml.YAMLError:  # somebody's own file
        return ""
    keys = [key for key in other | one if one.get(key, "") != other.get(key, "")]
    keys = [re.sub(r"(.+)\.sha256$", r"the file of \1", key) for key in keys]
    return f", which differs in {named(keys, N_NAMED)}" if keys else ""


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
        self._round = -1  # the last that is recorded

    def begin(self, dataset: Dataset) -> tuple[int, State | None]:
        """Open the folder; return the last round that is recorded in it, and its state.

        Args:
            dataset: What the run is on; a run on other data is not gone on with.

        Raises:
            TakenError: If another command has it, or had it since :func:`check_folders` looked.
        """
        folder, scenario = self.folder, self.scenario
        self._take()
        columns, own = self.kind.columns(scenario), scenario.to_yaml()
        is_same = other_data(folder, dataset) is None
        if is_same and goes_on(folder, scenario, self._options):
            round_, state = folder.resume(columns)
            folder.log(f"resumed after round {round_}")
        else:  # before the scenario: what is there may be another's
            folder.start(columns)
            round_, state = -1, None
        folder.write("scenario.yaml", own)
        for spec in own_specs(scenario):
            if spec.code.source is not None:  # beside the scenario, so that this can be run again
                folder.write_bytes(spec.code.path.name, spec.code.source)
        if scenario.init is not None:
            folder.write_bytes(COPY, scenario.init.content)
            folder.log(f"starts from {scenario.init.source}")
        self._environment = environment(scenario, self._options.command)
        self._environment["data"] = data_of(scenario, dataset)
        folder.write_json(ENVIRONMENT, self._environment)
        self._progress.begin(scenario, max(0, round_))
        self._trackers = []
        for start in self._options.trackers:
            with self._untracked_on_error():
                self._trackers.append(start(scenario, folder.path, round_))
        self._round, self._state = round_, state
        return round_, state

    def _take(self) -> None:
        """Claim the folder, and see what another command has made of it before it was this one's.

        Raises:
            TakenError: If it is another's, or is no more to be run.
        """
        if not self.folder.claim():
            return
        try:
            left = check_folders([self.scenario], self._options, claimed=True)
        except ScenarioError as error:
            raise TakenError(error.faults[0].text) from None
        if not left:
            raise TakenError
        self.folder.sign()

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
        readable = TooFewClientsError | OwnCodeError | NobodyHeardError  # these say what to do
        if not isinstance(fault, readable):
            text = f"{type(fault).__name__}: {text}"
        elif isinstance(fault, TooFewClientsError):
            text += " (strategy.on_too_few: skip_round would go on)"
        when = "" if self._round < 0 else f"after round {self._round}: "
        reason, self._state = when + " ".join(text.split()), None
        told = f"failed {reason}" if when else f"failed: {reason}"
        self.failure = f"the run {told}"
        # It may be this folder that cannot be written, or another command's since it was looked at.
        with suppress(OSError, TakenError):
            self._take()
            self.folder.check_own()
            self.folder.fail(reason, traceback_text)
        self.folder.release()
        for tracker in self._trackers:
            with self._untracked_on_error():
                tracker.failed(reason)
        self._progress.end(self.scenario, told)

    def write(self, records: Iterable[Record]) -> None:
        """Write records as they come, and the summary after the last."""
        for record in records:
            self.record(record)
            del record  # its state may be as large as all updates: one is enough
        self.finish()

    def record(self, record: Record) -> None:
        """Write one record.

        Raises:
            TakenError: If another command writes this run by now.
        """
        self.folder.check_own()
        if self._trackers:
            columns = self.kind.columns(self.scenario)
            tables = {
                name: pd.DataFrame(rows, columns=list(columns[name]))
                for name, rows in record.tables.items()
            }
            for tracker in list(self._trackers):
                with self._untracked_on_error(tracker):
                    tracker.round(record.round_, tables)
        self._state = None  # the one before
        round_, every = record.round_, self.scenario.engine.checkpoint_every
        lasts = round_ % every == 0 or round_ == self.scenario.rounds
        self.folder.record(record, lasts=lasts)
        self._round, self._state = record.round_, record.state
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
            self.folder.write_json(ENVIRONMENT, self._environment)

    def finish(self) -> None:
        """Write the final model and the summary.

        Raises:
            TakenError: If another command writes this run by now.
        """
        self.folder.check_own()
        state, self._state = self._state, None  # a sweep has thousands of these
        assert state is not None
        self.folder.close()
        summary = self.kind.summarise(self.folder.path, self.scenario)
        for poison, pieces in summary.get("untrained_pieces", {}).items():
            numbers = ", ".join(map(str, pieces))
            text = f"no attacker who took part had piece {numbers} (from 0) of {poison}"
            self._note([f"{self.scenario.variant} seed {self.scenario.seed}: {text}"])
        self.folder.finish(state, summary, may_go_on=self.scenario.may_be_longer)
        for tracker in self._trackers:
            with self._untracked_on_error():
                tracker.done(summary)
        self._progress.end(self.scenario, "done")


Compute = Callable[[RunWriter, Any, Dataset], None]
"""Computes a run and writes it: the writer's scenario, with its own code run anew."""


def environment(scenario: AnyScenario, command: str) -> dict[str, Any]:
    """Return what a reader needs to judge or repeat a run besides its scenario."""
    return {
        "command": command,
        "engine": scenario.engine.model_dump(mode="json"),
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": versions(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": gpus(),
        "decisions": [],
    }


def _processor() -> str:
    """Return the CPU's model: on another the last bits of results may differ."""
    with suppress(OSError):  # Linux alone has it, where platform says no more than x86_64
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def _commit(checkout: Path = Path(__file__).parents[2]) -> str | None:
    """Return the commit of the code, as it was when a process first asked: that is what runs."""
    git = shutil.which("git")
    if git is None or not (checkout / ".git").exists():  # installed, maybe in somebody's repository
        return None
    result = subprocess.run(
        [git, "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or None
