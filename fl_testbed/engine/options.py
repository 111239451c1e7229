"""How a command wants its runs done, and to whom their progress is reported."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from fl_testbed.engine.run_folder import Evaluated
from fl_testbed.scenario import AnyScenario


class Progress(Protocol):
    """Receives reports of how the runs go."""

    def begin(self, scenario: AnyScenario, first_round: int) -> None:
        """Called when a run begins, or is resumed after some rounds."""

    def round(self, scenario: AnyScenario, round_: int, evaluation: Evaluated | None) -> None:
        """Called when a round is done."""

    def note(self, text: str) -> None:
        """Called with a decision of the engine; every run may report the same one."""

    def end(self, scenario: AnyScenario, outcome: str) -> None:
        """Called when a run has ended, with how it ended."""


class Tracker(Protocol):
    """Reports one run to an experiment-tracking program. Nothing is ever read back from there.

    Each method may raise a TrackerError: the run then goes on without the tracker.
    """

    def round(self, round_: int, tables: Mapping[str, pd.DataFrame], /) -> None:
        """Called with a round's rows of the run folder's tables, by file name, before they are
        written.

        A run that was killed may send the same last round again when it is resumed.
        """

    def done(self, summary: Mapping[str, Any], /) -> None:
        """Called with the summary when the run is done."""

    def failed(self, reason: str, /) -> None:
        """Called with the reason when the run has failed."""


StartTracker = Callable[[AnyScenario, Path, int], Tracker]
"""Makes a tracker from a run's scenario, its folder, and the last round done (-1 if none)."""


@dataclass(frozen=True)
class Options:
    """How to run: nothing here changes a result."""

    out: Path
    data_dir: Path | None
    command: str
    resume: bool = False
    redo: bool = False
    """Whether a new run may replace one of another scenario, or one that cannot be resumed."""
    trackers: Sequence[StartTracker] = ()
    is_part: bool = False
    """Whether runs of a sweep were left out, by variant or seed: these stay in its plan."""
