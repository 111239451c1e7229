"""How a command wants its runs, and who is told of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from fl_testbed.engine.run_folder import Evaluated
from fl_testbed.scenario import AnyScenario


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
    is_part: bool = False
    """Whether runs of a sweep were left out, by variant or seed: they stay planned."""
