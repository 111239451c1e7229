"""What a person sees while runs go on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

if TYPE_CHECKING:  # the engine brings Flower and pandas, which --help can do without
    from fl_testbed.engine.run_folder import Evaluated
    from fl_testbed.scenario import AnyScenario

QUIET_S = 60.0  # after this long without output, a line reports progress
PIPED_WIDTH = 160  # columns for tables where output is piped, instead of 80


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that shows text as it is, and keeps tables wide where it is piped."""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console


class RunProgress:
    """Shows progress: one bar for all rounds of all runs; piped, a line per run or quiet minute."""

    def __init__(self, console: Console, scenarios: Sequence[AnyScenario]) -> None:
        self._console, self._n_runs, self._n_done = console, len(scenarios), 0
        n_rounds = sum(scenario.rounds for scenario in scenarios)
        self._several = len({scenario.name for scenario in scenarios}) > 1
        self._start: float | None = None  # of the first run: Ray's own startup is not counted
        self._rounds_left, self._rounds_computed = n_rounds, 0
        self._last_line = monotonic()
        self._rounds_of: dict[str, int] = {}  # rounds done in each run: several may go side by side
        self._began: dict[str, float] = {}
        self._figures: dict[str, str] = {}
        self._notes: set[str] = set()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rounds{task.fields[time_left]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=n_rounds, time_left="")

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(self, *fault: object) -> None:
        if not self._bar.disable:  # else it would end in an empty line
            self._bar.stop()

    @property
    def has_begun(self) -> bool:
        """Whether any run has begun."""
        return self._start is not None

    def begin(self, scenario: AnyScenario, first_round: int) -> None:
        """Note the start of a run; earlier rounds of a resumed one count as done.

        A run that cannot be resumed may begin again: its rounds then count as still to do.
        """
        label = self._label(scenario)
        self._began[label] = monotonic()
        if self._start is None:
            self._start = self._began[label]
        self._advance(label, first_round - self._rounds_of.get(label, 0), label)

    def round(self, scenario: AnyScenario, round_: int, evaluation: Evaluated | None) -> None:
        """Show a round's figures."""
        label = self._label(scenario)
        if evaluation is not None:
            self._figures[label] = _figures(evaluation)
        self._rounds_computed += int(round_ > 0)
        description = f"{label}  {self._figures.get(label, '')}"
        self._advance(label, int(round_ > 0), description)
        if self._bar.disable and monotonic() - self._last_line > QUIET_S:
            self._print(f"{description}  round {round_} of {scenario.rounds}{self._time_left()}")

    def note(self, text: str) -> None:
        """Print a decision of the engine, the first time that it is taken."""
        if text not in self._notes:
            self._notes.add(text)
            self._console.print(text)

    def end(self, scenario: AnyScenario, outcome: str) -> None:
        """Print a run's last figures: tables have means over several rounds."""
        self._n_done += 1
        label = self._label(scenario)
        self._advance(label, scenario.rounds - self._rounds_of.get(label, 0), label)
        if outcome == "done":
            took = monotonic() - self._began.pop(label)
            figures = self._figures.pop(label, "")
            which = "last round: " if figures and scenario.rounds > 1 else ""
            outcome = f"{which}{figures}  {took:.1f} s{self._time_left()}"
        self._print(f"[{self._n_done}/{self._n_runs}] {label}  {outcome}")

    def _print(self, line: str) -> None:
        self._last_line = monotonic()
        self._console.print(line, soft_wrap=True)

    def _label(self, scenario: AnyScenario) -> str:
        name = f"{scenario.name}: " if self._several else ""
        return f"{name}{scenario.variant} seed {scenario.seed}"

    def _advance(self, label: str, rounds: int, description: str) -> None:
        self._rounds_of[label] = self._rounds_of.get(label, 0) + rounds
        self._rounds_left -= rounds
        self._bar.update(
            self._task, description=description, advance=rounds, time_left=self._time_left()
        )

    def _time_left(self) -> str:
        """Estimate the time left, assuming that rounds to come take as long as those computed."""
        if self._start is None or not self._rounds_computed or not self._rounds_left:
            return ""
        per_round = (monotonic() - self._start) / self._rounds_computed
        return f", about {duration(per_round * self._rounds_left)} left"


def duration(seconds: float) -> str:
    """Return a duration as readable text, such as ``2 h 5 min``."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _figures(evaluation: Evaluated) -> str:
    figures = {
        "accuracy": evaluation.groups.accuracy,
        "worst group": evaluation.groups.worst,
        "ASR": evaluation.attack_success_rate,
    }
    texts = [
        f"{name} {100 * value:.1f}" for name, value in figures.items() if not math.isnan(value)
    ]
    if texts and not math.isfinite(evaluation.loss):
        texts.append(f"diverged: loss {evaluation.loss}")
    return "  ".join(texts)
