from pathlib import Path

import pytest
from run_folders import write_run

from fl_testbed.report.columns import ACCURACY
from fl_testbed.report.comparison import compare
from fl_testbed.report.own_figures import with_own
from fl_testbed.report.results import RunResult, find_runs
from fl_testbed.scenario import ScenarioError
from fl_testbed.scenario.users_code import OwnCodeError

CODE = """
def last_round(rounds, times=2):
    return times * rounds["round"].max()


def no_number(rounds):
    return rounds


def of_no_table(nowhere):
    return 1
"""


@pytest.fixture
def runs(tmp_path: Path) -> list[RunResult]:
    (tmp_path / "mine.py").write_text(CODE)
    for variant, last in (("mean", 3), ("krum", 5)):
        folder = write_run(tmp_path / "sweep", variant, 0, {ACCURACY.key: 0.5})
        (folder / "rounds.csv").write_text(f"round,accuracy\n1,0.1\n{last},0.2\n")
    write_run(tmp_path / "sweep", "unfinished", 0)
    (tmp_path / "sweep" / "here").symlink_to(tmp_path)  # runs are found once
    return find_runs([tmp_path])


def test_a_figure_of_ones_own_is_a_column_like_others(
    runs: list[RunResult], tmp_path: Path
) -> None:
    comparison = compare(with_own(runs, [f"{tmp_path}/mine.py:last_round"]), "mean")
    (column,) = comparison.sections["your own figures"]
    assert column.title == "last round"
    means = {row.label: row.estimates[column.key].mean for row in comparison.rows}
    assert (means["krum"], means["mean"]) == (10, 6)
    assert comparison.rows[0].differences[column.key].mean == 4


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        (
            "no_number",
            OwnCodeError,
            "mine.py:6: no_number must return a number, returned DataFrame",
        ),
        ("of_no_table", ScenarioError, "asks for 'nowhere', but the run has the tables rounds"),
        ("nothing", ScenarioError, "has no 'nothing'"),
    ],
)
def test_what_is_no_figure_is_told(
    runs: list[RunResult], tmp_path: Path, name: str, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        with_own(runs, [f"{tmp_path}/mine.py:{name}"])


def test_a_damaged_table_is_named(runs: list[RunResult], tmp_path: Path) -> None:
    (runs[0].folder / "rounds.csv").write_text("")
    with pytest.raises(ScenarioError, match=r"rounds.csv: is not what a run writes"):
        with_own(runs, [f"{tmp_path}/mine.py:last_round"])
