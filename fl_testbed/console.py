"""What a person sees while runs go on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:  # the engine brings Flower and pandas, which --help can do without
    from fl_testbed.engine.evaluation import Evaluation
    from fl_testbed.scenario import Scenario

PIPED_WIDTH = 120  # a table is not squeezed into 80 columns where nobody sees the terminal


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that keeps tables wide where the output is piped."""
    console = Console(stderr=stderr, highlight=False)
    return (
        console
        if console.is_terminal
        else Console(stderr=stderr, highlight=False, width=PIPED_WIDTH)
    )


class RunProgress:
    """Tells how runs go: one bar for all rounds of all runs, or a line per run when piped."""

    def __init__(self, console: Console, n_runs: int, n_rounds: int) -> None:
        self._console, self._n_runs, self._n_done = console, n_runs, 0
        self._began: dict[str, float] = {}  # by run: several may go side by side
        self._figures: dict[str, str] = {}
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("rounds,"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=console,
            )
            self._task = self._bar.add_task("starting", total=n_rounds)

    def __enter__(self) -> RunProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, scenario: Scenario, first_round: int) -> None:
        """Note the start of a run; earlier rounds of a resumed one count as done."""
        self._began[_label(scenario)] = monotonic()
        if self._bar is not None:
            self._bar.update(self._task, description=_label(scenario), advance=first_round)

    def round(self, scenario: Scenario, round_: int, evaluation: Evaluation | None) -> None:
        """Show a round's figures."""
        if evaluation is not None:
            self._figures[_label(scenario)] = _figures(evaluation)
        if self._bar is not None:
            description = f"{_label(scenario)}  {self._figures.get(_label(scenario), '')}"
            self._bar.update(self._task, description=description, advance=int(round_ > 0))

    def end(self, scenario: Scenario, outcome: str) -> None:
        """Print a run's last figures."""
        self._n_done += 1
        if outcome == "done":
            label = _label(scenario)
            outcome = (
                f"{self._figures.pop(label, '')}  {monotonic() - self._began.pop(label):.1f} s"
            )
        elif self._bar is not None:
            self._bar.update(self._task, advance=scenario.rounds)
        self._console.print(
            f"[{self._n_done}/{self._n_runs}] {_label(scenario)}  {outcome}", markup=False
        )


def _label(scenario: Scenario) -> str:
    return f"{scenario.variant} seed {scenario.seed}"


def _figures(evaluation: Evaluation) -> str:
    figures = {
        "accuracy": evaluation.groups.accuracy,
        "worst group": evaluation.groups.worst,
        "ASR": evaluation.attack_success_rate,
    }
    return "  ".join(
        f"{name} {100 * value:.1f}" for name, value in figures.items() if not math.isnan(value)
    )
