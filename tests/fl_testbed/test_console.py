"""What a person is told of the time that runs take."""

import io
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import write_scenario
from rich.console import Console
from rich.table import Table

from fl_testbed import console as console_module
from fl_testbed.console import RunProgress, make_console
from fl_testbed.scenario import load_scenarios


def test_rounds_of_a_run_that_begins_again_count_once(tmp_path: Path) -> None:
    first, second = load_scenarios(write_scenario(tmp_path), ["rounds=4", "sweep.seed=[0, 1]"])
    console = Console(file=io.StringIO(), force_terminal=True)
    with RunProgress(console, [first, second]) as progress:
        assert progress._bar is not None
        (task,) = progress._bar.tasks
        for _ in range(2):
            progress.begin(first, 0)
            for round_ in range(4):
                progress.round(first, round_, None)
        assert task.completed == 3
        progress.end(first, "done")
        assert task.completed == 4
        progress.begin(second, 2)  # resumed
        assert task.completed == 6


def test_piped_long_runs_are_heard_of_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(console_module, "monotonic", lambda: now)
    (scenario,) = load_scenarios(write_scenario(tmp_path), ["rounds=300"])
    shown = io.StringIO()
    with RunProgress(Console(file=shown), [scenario]) as progress:
        now += 30.0  # until workers are there: no part of what a round takes
        progress.begin(scenario, 0)
        for round_ in range(201):
            progress.round(scenario, round_, None)
            now += 1.0
        progress.end(scenario, "done")
    label = f"{scenario.variant} seed {scenario.seed}"
    assert shown.getvalue().splitlines() == [
        f"{label}    round 31 of 300, about 5 min left",
        f"{label}    round 92 of 300, about 4 min left",
        f"{label}    round 153 of 300, about 3 min left",
        f"[1/1] {label}    201.0 s",
    ]


@pytest.mark.parametrize(
    ("rounds", "loss", "figures"),
    [
        (2, 1.0, "last round: accuracy 50.0  ASR 50.0  0."),
        (1, 1.0, "accuracy"),
        (1, math.nan, "accuracy 50.0  ASR 50.0  diverged: loss nan"),
        (1, math.inf, "accuracy 50.0  ASR 50.0  diverged: loss inf"),
    ],
)
def test_figures_of_the_last_round_are_said_to_be_its_own_where_there_are_more(
    tmp_path: Path, rounds: int, loss: float, figures: str
) -> None:
    (scenario,) = load_scenarios(write_scenario(tmp_path), [f"rounds={rounds}"])
    shown = io.StringIO()
    groups = SimpleNamespace(accuracy=0.5, worst=math.nan)
    with RunProgress(Console(file=shown), [scenario]) as progress:
        progress.begin(scenario, 0)
        evaluation = SimpleNamespace(groups=groups, attack_success_rate=0.5, loss=loss)
        progress.round(scenario, rounds, evaluation)
        progress.end(scenario, "done")
    assert f"seed {scenario.seed}  {figures}" in shown.getvalue()


def test_names_of_groups_are_shown_as_they_are(capsys) -> None:
    table = Table("[other] :key:")
    table.add_row("[/unknown]")  # as markup, the end of what never began
    make_console().print(table)
    shown = capsys.readouterr().out
    assert "[other] :key:" in shown
    assert "[/unknown]" in shown
