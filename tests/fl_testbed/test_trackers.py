"""TensorBoard and MLflow hold what the run folder holds, also after a run was interrupted."""

import fcntl
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock, patch

import pandas as pd
import pytest
from commands import SCENARIO, assert_same_results, run, write_scenario
from sqlalchemy.exc import OperationalError

from fl_testbed.engine.errors import TrackerError
from fl_testbed.engine.launch import launch
from fl_testbed.engine.options import Options, StartTracker
from fl_testbed.engine.ownership import TURNS
from fl_testbed.engine.run_folder import Record, RunFolder
from fl_testbed.report.histories import client_history, weight_ratios_by_round
from fl_testbed.scenario import AnyScenario, ScenarioError, load_scenarios
from fl_testbed.trackers import start_trackers

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader:DeprecationWarning"  # MLflow's, of SQLAlchemy
)

RULE = "strategy: {aggregation: {kind: multi_krum, n_malicious: 2}}"
TEXT = SCENARIO.replace("strategy: {aggregation: {kind: mean}}", RULE)
ACCURACY, WEIGHT = "worst_group_accuracy", "weight_ratio/honest_minority"


@pytest.fixture
def scenarios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[AnyScenario]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return list(load_scenarios(write_scenario(tmp_path, TEXT)))


def launch_twice(
    scenarios: list[AnyScenario], out: Path, trackers: Callable[[], list[StartTracker]]
) -> Path:
    """Kill a run when trackers have been told of round 2 and its folder has not, and go on."""
    record = RunFolder.record

    def killed(self: RunFolder, content: Record, **how: bool) -> None:
        if content.round_ == 2:
            raise KeyboardInterrupt
        record(self, content, **how)

    with patch.object(RunFolder, "record", killed), pytest.raises(KeyboardInterrupt):
        launch(scenarios, Options(out, None, "", trackers=trackers()), MagicMock())
    launch(scenarios, Options(out, None, "", resume=True, trackers=trackers()), MagicMock())
    return out / "small" / "default" / "seed-0"


def expected(folder: Path) -> dict[str, pd.Series]:
    """The figures of a run by round, from its folder."""
    rounds = pd.read_csv(folder / "rounds.csv", index_col="round")
    weights = weight_ratios_by_round(client_history(folder))
    groups = pd.read_csv(folder / "groups.csv").pivot(
        index="round", columns="group", values="accuracy"
    )
    return {
        ACCURACY: rounds[ACCURACY],
        WEIGHT: weights["honest_minority"],
        "group_accuracy/inverted": groups["inverted"],
    }


def test_tensorboard_shows_every_round_once(scenarios, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = launch_twice(
        scenarios, tmp_path / "out", lambda: start_trackers(["tensorboard"], tmp_path / "out")
    )
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    for name, values in expected(folder).items():
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == list(values.index)
        assert [scalar.value for scalar in scalars] == pytest.approx(list(values))
    (final,) = events.Scalars("summary/final.accuracy")
    assert final.step == 4
    (text,) = events.Tensors("scenario/text_summary")[-1].tensor_proto.string_val
    assert b"kind: multi_krum" in text


def test_mlflow_holds_one_run_with_every_round(scenarios, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    out = tmp_path / "out"
    folder = launch_twice(scenarios, out, lambda: start_trackers(["mlflow"], out))
    client = mlflow.MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    (kept,) = client.search_runs([experiment.experiment_id])
    assert (kept.info.run_name, kept.info.status) == ("default seed 0", "FINISHED")
    assert kept.data.params["strategy.aggregation.kind"] == "multi_krum"
    for name, values in expected(folder).items():
        history = client.get_metric_history(kept.info.run_id, name)
        assert [metric.step for metric in history] == sorted([*values.index, 2])  # told twice
        assert {metric.step: metric.value for metric in history} == pytest.approx(dict(values))
    (final,) = client.get_metric_history(kept.info.run_id, "summary.final.accuracy")
    assert final.step == 4


def test_mlflow_goes_on_with_the_run_that_was_begun_last(scenarios, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    (start,) = start_trackers(["mlflow"], tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")

    def runs() -> list[str]:
        (experiment,) = client.search_experiments(filter_string="name = 'small'")
        newest_first = client.search_runs([experiment.experiment_id])
        return [run.info.status for run in newest_first]

    start(scenarios[0], tmp_path / "run", -1).failed("for a reason")
    start(scenarios[0], tmp_path / "run", 0).failed("for another")  # after round 0: the same run
    assert runs() == ["FAILED"]
    start(scenarios[0], tmp_path / "run", -1).failed("its folder had been removed")
    assert runs() == ["FAILED", "FAILED"]
    start(scenarios[0], tmp_path / "run", 2)
    assert runs() == ["RUNNING", "FAILED"]


def test_commands_that_start_together_make_one_database_with_one_experiment(
    scenarios, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    client, locked = mlflow.MlflowClient, []
    by_name = client.get_experiment_by_name

    def making(**settings: str):
        with (tmp_path / TURNS).open("a") as turns, pytest.raises(BlockingIOError):
            fcntl.flock(turns, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked.append(turns)
        return client(**settings)

    monkeypatch.setattr("fl_testbed.trackers.mlflow.MlflowClient", making)
    (start,) = start_trackers(["mlflow"], tmp_path)
    assert len(locked) == 1

    def meanwhile(self, name: str):
        monkeypatch.setattr(client, "get_experiment_by_name", by_name)
        self.create_experiment(name)

    monkeypatch.setattr(client, "get_experiment_by_name", meanwhile)
    start(scenarios[0], tmp_path / "run", -1)


class Unreachable:
    """A tracker whose server has gone after the first round, or a run that fails for itself."""

    told: tuple[str, ...] = ()

    def __init__(self, scenario: AnyScenario, folder: Path, done: int) -> None:
        del scenario, folder, done

    def round(self, round_: int, tables: object) -> None:
        del tables
        type(self).told += (f"round {round_}",)
        if round_ == 1:
            raise TrackerError("the server has gone")

    def done(self, summary: object) -> None:
        raise AssertionError(summary)

    failed = done


def test_a_tracker_changes_nothing_even_where_it_fails(scenarios, tmp_path: Path) -> None:
    launch(scenarios, Options(tmp_path / "plain", None, ""), MagicMock())
    progress = MagicMock()
    options = Options(tmp_path / "out", None, "", trackers=[Unreachable])
    assert launch(scenarios, options, progress) == []
    assert_same_results(tmp_path / "plain", tmp_path / "out")
    assert Unreachable.told == ("round 0", "round 1")
    progress.note.assert_any_call("the server has gone; runs go on without it")


def test_a_tracker_is_told_why_a_run_failed(scenarios, tmp_path: Path) -> None:
    tracker, progress = MagicMock(), MagicMock()
    options = Options(tmp_path / "out", None, "", trackers=[lambda *begun: tracker])
    with patch("fl_testbed.engine.rounds.Run.rounds", side_effect=ArithmeticError("broken")):
        assert launch(scenarios, options, progress) != []
    tracker.failed.assert_called_once_with("ArithmeticError: broken")
    progress.end.assert_called_once_with(scenarios[0], "failed: ArithmeticError: broken")


def test_a_database_that_cannot_be_made_leaves_none_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("fl_testbed.trackers.mlflow")

    def fill_up(tracking_uri: str) -> None:
        Path(tracking_uri.removeprefix("sqlite:///")).touch()
        raise OperationalError("DROP TABLE params", None, OSError("database or disk is full"))

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow, "MlflowClient", fill_up)
    with pytest.raises(ScenarioError, match=r"--tracker mlflow: .*disk is full$"):
        start_trackers(["mlflow"], tmp_path)
    assert [left.name for left in tmp_path.iterdir()] == [TURNS]


def test_one_that_is_not_installed_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scenario(tmp_path)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "fl_testbed.trackers.mlflow", raising=False)
    done = run("run", "scenario.yaml", "--tracker", "mlflow", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "--tracker mlflow: needs mlflow: pip install 'fl-testbed[mlflow]'\n"
    assert not (tmp_path / "runs").exists()
