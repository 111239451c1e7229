"""Writes one run of a command into its folder, and reports it to progress and trackers."""

import errno
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from fl_testbed.data import Dataset
from fl_testbed.engine.datasets import DatasetCache
from fl_testbed.engine.earlier_runs import check_folders, goes_on, other_data, run_folder
from fl_testbed.engine.environment import ENVIRONMENT, data_of, environment
from fl_testbed.engine.errors import NobodyHeardError, PoolError, TakenError, TrackerError
from fl_testbed.engine.options import Options, Progress, Tracker
from fl_testbed.engine.run_folder import Record, State
from fl_testbed.scenario import AnyScenario, ScenarioError
from fl_testbed.scenario.initial_model import COPY
from fl_testbed.scenario.own_specs import own_specs
from fl_testbed.scenario.users_code import OwnCodeError
from strategies.aggregation import TooFewClientsError

DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # these concern all runs


class Kind(Protocol):
    """How runs of one kind of scenario are checked, computed and summed up."""

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
        """Compute a run in this process, and yield the records of the rounds after ``done``."""
        ...

    def summarise(self, folder: Path, scenario: Any, /) -> dict[str, Any]:
        """Return the summary of a run, from its tables alone."""
        ...


class RunWriter:
    """Writes one run's folder from the run's records, wherever these are computed."""

    def __init__(
        self, scenario: AnyScenario, options: Options, progress: Progress, kind: Kind
    ) -> None:
        self.scenario, self.kind = scenario, kind
        self.folder = run_folder(options.out, scenario)
        self._options, self._progress = options, progress
        self.failure: str | None = None
        """Why the run has no summary; None if it has not failed."""
        self._trackers: list[Tracker] = []
        self._round = -1  # the last one recorded

    def begin(self, dataset: Dataset) -> tuple[int, State | None]:
        """Open the folder; return the last round that is recorded in it, and its state.

        Args:
            dataset: The run's data; an earlier run on other data is not resumed.

        Raises:
            TakenError: If another command is writing the run, or has done so since
                :func:`check_folders` looked.
        """
        folder, scenario = self.folder, self.scenario
        self._take()
        columns, own = self.kind.columns(scenario), scenario.to_yaml()
        is_same = other_data(folder, dataset) is None
        if is_same and goes_on(folder, scenario, self._options):
            round_, state = folder.resume(columns)
            folder.log(f"resumed after round {round_}")
        else:  # before scenario.yaml: clears another run's files
            folder.start(columns)
            round_, state = -1, None
        folder.write("scenario.yaml", own)
        for spec in own_specs(scenario):
            if spec.code.source is not None:  # beside scenario.yaml, which can then be run again
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
        """Claim the folder, and check what other commands did in it before the claim.

        Raises:
            TakenError: If another command has it, or the run need not be run any more.
        """
        if not self.folder.ownership.claim():
            return
        try:
            left = check_folders([self.scenario], self._options, claimed=True)
        except ScenarioError as error:
            raise TakenError(error.faults[0].text) from None
        if not left:
            raise TakenError
        self.folder.ownership.sign()

    @contextmanager
    def survived(self) -> Iterator[None]:
        """Record an error inside the block as this run's failure, unless it concerns all runs."""
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
        readable = TooFewClientsError | OwnCodeError | NobodyHeardError  # texts say what to do
        if not isinstance(fault, readable):
            text = f"{type(fault).__name__}: {text}"
        elif isinstance(fault, TooFewClientsError):
            text += " (with strategy.on_too_few: skip_round the run would go on)"
        when = "" if self._round < 0 else f"after round {self._round}: "
        reason, self._state = when + " ".join(text.split()), None
        told = f"failed {reason}" if when else f"failed: {reason}"
        self.failure = f"the run {told}"
        # The folder itself may be unwritable, or another command may have taken it meanwhile.
        with suppress(OSError, TakenError):
            self._take()
            self.folder.ownership.check()
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
            del record  # its state may be as large as all updates: hold no second one
        self.finish()

    def record(self, record: Record) -> None:
        """Write one record.

        Raises:
            TakenError: If another command has begun to write this run.
        """
        self.folder.ownership.check()
        if self._trackers:
            columns = self.kind.columns(self.scenario)
            tables = {
                name: pd.DataFrame(rows, columns=list(columns[name]))
                for name, rows in record.tables.items()
            }
            for tracker in list(self._trackers):
                with self._untracked_on_error(tracker):
                    tracker.round(record.round_, tables)
        self._state = None  # frees the previous one
        round_, every = record.round_, self.scenario.engine.checkpoint_every
        lasts = round_ % every == 0 or round_ == self.scenario.rounds
        self.folder.record(record, lasts=lasts)
        self._round, self._state = record.round_, record.state
        self._note(record.notes)
        self._progress.round(self.scenario, record.round_, record.evaluation)

    @contextmanager
    def _untracked_on_error(self, *trackers: Tracker) -> Iterator[None]:
        """Go on without a tracker that fails: results do not depend on it."""
        try:
            yield
        except TrackerError as fault:
            self._trackers = [tracker for tracker in self._trackers if tracker not in trackers]
            text = f"{fault}; runs go on without it"
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
            TakenError: If another command has begun to write this run.
        """
        self.folder.ownership.check()
        state, self._state = self._state, None  # freed: a sweep has thousands of these
        assert state is not None
        self.folder.close()
        summary = self.kind.summarise(self.folder.path, self.scenario)
        for poison, pieces in summary.get("untrained_pieces", {}).items():
            numbers = ", ".join(map(str, pieces))
            text = f"no attacker that took part had piece {numbers} (counted from 0) of {poison}"
            self._note([f"{self.scenario.variant} seed {self.scenario.seed}: {text}"])
        self.folder.finish(state, summary, may_go_on=self.scenario.may_be_longer)
        for tracker in self._trackers:
            with self._untracked_on_error():
                tracker.done(summary)
        self._progress.end(self.scenario, "done")


Compute = Callable[[RunWriter, Any, Dataset], None]
"""Computes and writes a run; its scenario is the writer's, with the user's own code run anew."""
