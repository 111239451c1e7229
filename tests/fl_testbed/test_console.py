"""What a person is told of the time that runs take."""

import io
from pathlib import Path

from commands import write_scenario
from rich.console import Console

from fl_testbed.console import RunProgress
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
