"""Any Flower strategy from a scenario: it runs unchanged, and its weights are inferred."""

import gc
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
from commands import SCENARIO, assert_same_results, run, write_scenario
from safetensors.numpy import load_file

from fl_testbed.engine.earlier_runs import run_folder
from fl_testbed.engine.launch import launch
from fl_testbed.engine.options import Options
from fl_testbed.scenario import ScenarioError, load_scenarios

BUILT_IN = {
    "FedAvg": "{}",
    "FedMedian": "{}",
    "FedTrimmedAvg": "{beta: 0.2}",
    "Krum": "{num_malicious_nodes: 2}",
    "MultiKrum": "{num_malicious_nodes: 2, num_nodes_to_select: 10}",
    "Bulyan": "{num_malicious_nodes: 2}",
    "QFedAvg": "{client_learning_rate: 0.1, q: 1.0, train_loss_key: train-loss}",
}
OURS = {
    "mean": "{aggregation: {kind: mean}}",
    "multi_krum": "{aggregation: {kind: multi_krum, n_malicious: 2}}",
    "norm_clipping": "{aggregation: {kind: norm_clipping}}",
}
CLIPPING = """
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

from strategies.aggregation import norm_clipping
from strategies.robust import RobustFedAvg


class Silent(RobustFedAvg):
    state_dict = load_state_dict = property()  # as if it had none


class Mute(RobustFedAvg):
    load_state_dict = property()  # it says what it carries, and cannot take it up


def clipping(**fedavg):
    return Silent(norm_clipping, **fedavg)


def waiting(**fedavg):
    return DifferentialPrivacyServerSideFixedClipping(FedAvg(**fedavg), 0.1, 1.0, 12)


def mute(**fedavg):
    return Mute(norm_clipping, **fedavg)


def broken(**fedavg):
    return 1


class Picky(RobustFedAvg):
    def __init__(self, **fedavg):
        super().__init__(norm_clipping, **fedavg)

    def aggregate_train(self, server_round, replies):
        if server_round == 2:
            raise RuntimeError("not today")
        return super().aggregate_train(server_round, replies)
"""
FAULTY = """
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvg


class Lacking(FedAvg):
    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        kept = list(arrays.items())[server_round == 2 :]
        return ArrayRecord(dict(kept)), metrics


class Unwilling(FedAvg):
    def configure_train(self, server_round, arrays, config, grid):
        if server_round == 2:
            config["clip"]
        return super().configure_train(server_round, arrays, config, grid)
"""
PRIVATE = """
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg


def private(**fedavg):
    return DifferentialPrivacyServerSideFixedClipping(FedAvg(**fedavg), 0.1, 1.0, 12)
"""

COUNTS_FROZEN = """
import gc
from pathlib import Path

from flwr.serverapp.strategy import FedAvg


class Counting(FedAvg):
    def aggregate_train(self, server_round, replies):
        Path(__file__).with_name("frozen").write_text(str(gc.get_freeze_count()))
        return super().aggregate_train(server_round, replies)


def counting(**fedavg):
    return Counting(**fedavg)
"""


def line_of(text: str, code: str) -> int:
    return 1 + code[: code.index(text)].count("\n")


def flower(path: str, args: str = "{}", more: str = "") -> str:
    return f"{{kind: flower, path: '{path}', args: {args}{more}}}"


def variants() -> dict[str, str]:
    built_in = {
        name: flower(f"flwr.serverapp.strategy:{name}", args) for name, args in BUILT_IN.items()
    }
    clipping = flower("mine.py:clipping", more=", leave_one_out: true")
    return OURS | built_in | {"clipping": clipping}


def scenario(folder: Path, strategies: dict[str, str]) -> Path:
    (folder / "mine.py").write_text(CLIPPING)
    lines = [f"  {name}: {{strategy: {spec}}}" for name, spec in strategies.items()]
    start = SCENARIO.replace("strategy: {aggregation: {kind: mean}}", "strategy: {}")
    return write_scenario(folder, f"{start}variants:\n" + "\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("flower")
    scenarios = load_scenarios(scenario(folder, variants()), ["rounds=2"])
    launch(scenarios, Options(folder / "out", None, ""), MagicMock())
    return {s.variant: run_folder(folder / "out", s).path for s in scenarios}


@pytest.mark.parametrize("name", BUILT_IN)
def test_flowers_own_strategies_run_and_are_measured(runs: dict[str, Path], name: str) -> None:
    clients = pd.read_csv(runs[name] / "clients.csv")
    np.testing.assert_allclose(clients.groupby("round")["weight"].sum(), 1)
    residual = pd.read_csv(runs[name] / "rounds.csv")["weight_residual"][1:]
    by_coordinate = name in ("FedMedian", "FedTrimmedAvg", "Bulyan")
    assert (residual.between(0.05, 0.95) if by_coordinate else residual < 1e-4).all()


@pytest.mark.parametrize(
    ("exact", "inferred"),
    [("mean", "FedAvg"), ("multi_krum", "MultiKrum"), ("norm_clipping", "clipping")],
)
def test_inferred_weights_agree_with_exact_ones(
    runs: dict[str, Path], exact: str, inferred: str
) -> None:
    ours, theirs = (pd.read_csv(runs[name] / "clients.csv") for name in (exact, inferred))
    assert (ours["weight"] - theirs["weight"]).abs().max() < 0.02
    assert theirs["suspicion"].isna().all()


def test_leaving_a_clipped_client_out_changes_less_than_leaving_out_another(
    runs: dict[str, Path],
) -> None:
    clients = pd.read_csv(runs["clipping"] / "clients.csv")
    assert (clients["influence"] > 0).all()
    assert pd.read_csv(runs["FedAvg"] / "clients.csv")["influence"].isna().all()


def test_a_strategy_that_returns_float64_leaves_a_model_as_clients_have_it(tmp_path: Path) -> None:
    adam = flower("flwr.serverapp.strategy:FedAdam", "{eta: 0.05}")
    path = scenario(tmp_path, {"adam": adam})
    scenarios = load_scenarios(path, ["training.cohort=12"])
    launch(scenarios, Options(tmp_path / "out", None, ""), MagicMock())
    folder = run_folder(tmp_path / "out", scenarios[0]).path
    types = {array.dtype for array in load_file(folder / "model.safetensors").values()}
    assert types == {np.dtype(np.float32)}
    assert "a cohort failed" not in (folder / "events.log").read_text()


def test_a_second_run_gives_the_same_bytes(tmp_path: Path) -> None:
    path = scenario(tmp_path, {"dp": flower("mine.py:private")})
    (tmp_path / "mine.py").write_text(PRIVATE)
    launch(load_scenarios(path), Options(tmp_path / "one", None, ""), MagicMock())
    np.random.seed(5)  # noqa: NPY002 (whatever it was before)
    launch(load_scenarios(path), Options(tmp_path / "two", None, ""), MagicMock())
    assert_same_results(tmp_path / "one", tmp_path / "two")


def test_flowers_own_engine_agrees_up_to_the_order_of_sums(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    scenario(tmp_path, {"MultiKrum": variants()["MultiKrum"]})
    how = ("--engine", "flower", "--workers", 1, "--set", "rounds=2")
    done = run("run", "scenario.yaml", "--out", "out", *how, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")  # nor does Ray say what it thinks of it
    ours = pd.read_csv(runs["MultiKrum"] / "clients.csv")
    theirs = pd.read_csv(tmp_path / "out" / "small" / "MultiKrum" / "seed-0" / "clients.csv")
    for column, atol in {"weight": 1e-3, "update_norm": 0, "train_loss": 0}.items():
        # Weights are inferred.
        np.testing.assert_allclose(ours[column], theirs[column], 1e-4, atol, err_msg=column)


def test_older_objects_are_no_garbage_while_a_strategy_works_and_only_then(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(COUNTS_FROZEN)
    path = write_scenario(
        tmp_path,
        SCENARIO.replace("{aggregation: {kind: mean}}", flower("mine.py:counting")),
    )
    gc.unfreeze()
    launch(load_scenarios(path, ["rounds=1"]), Options(tmp_path / "out", None, ""), MagicMock())
    assert int((tmp_path / "frozen").read_text()) > 100_000
    assert gc.get_freeze_count() == 0


def test_an_exception_in_a_strategy_costs_a_round_and_says_why(tmp_path: Path) -> None:
    path = scenario(tmp_path, {"picky": flower("mine.py:Picky")})
    progress = MagicMock()
    launch(load_scenarios(path), Options(tmp_path / "out", None, ""), progress)
    rounds = pd.read_csv(next((tmp_path / "out").rglob("rounds.csv")))
    fault = f"RuntimeError: not today (mine.py:{line_of('not today', CLIPPING)})"
    assert rounds["skipped"].tolist()[2] == fault
    progress.note.assert_called_with(f"picky seed 0, round 2 left the model unchanged: {fault}")
    assert rounds["skipped"].notna().sum() == 1


def test_what_a_strategy_tells_clients_and_these_do_not_read_is_said_once(tmp_path: Path) -> None:
    prox = flower("flwr.serverapp.strategy:FedProx", "{proximal_mu: 9.0}")
    progress = MagicMock()
    scenarios = load_scenarios(scenario(tmp_path, {"prox": prox}), ["rounds=2"])
    launch(scenarios, Options(tmp_path / "out", None, ""), progress)
    notes = [call.args[0] for call in progress.note.call_args_list]
    (note,) = (note for note in notes if "proximal-mu" in note)
    assert note.startswith("prox seed 0: the strategy sends clients proximal-mu, which they ignore")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("Lacking", "UnusableReplyError: arrays do not match the model's, missing 2.weight"),
        ("Unwilling", f"KeyError: 'clip' (mine.py:{line_of('config[', FAULTY)})"),
    ],
)
def test_half_a_model_or_a_fault_before_anybody_is_asked_costs_a_round_too(
    tmp_path: Path, name: str, fault: str
) -> None:
    path = scenario(tmp_path, {"it": flower(f"mine.py:{name}", more=", leave_one_out: true")})
    (tmp_path / "mine.py").write_text(FAULTY)
    recording = load_scenarios(path, ["record_updates={dtype: float32}"])
    assert launch(recording, Options(tmp_path / "out", None, ""), MagicMock()) == []
    rounds = pd.read_csv(next((tmp_path / "out").rglob("rounds.csv")))
    assert rounds["skipped"].fillna("").tolist() == ["", "", fault, *[""] * (len(rounds) - 3)]
    clients = pd.read_csv(next((tmp_path / "out").rglob("clients.csv")))
    assert clients["influence"][clients["round"] == 3].notna().all()


class StopError(BaseException): ...


def stop_after(n_rounds: int) -> MagicMock:
    def round_(scenario, round_, evaluation):
        if round_ == n_rounds:
            raise StopError

    return MagicMock(round=round_)


@pytest.mark.parametrize("name", ["clipping", "mute", "Picky"])
def test_only_a_strategy_with_a_state_dict_that_it_can_take_up_can_go_on(
    tmp_path: Path, name: str
) -> None:
    scenarios = load_scenarios(scenario(tmp_path, {"it": flower(f"mine.py:{name}")}))
    with pytest.raises(StopError):
        launch(scenarios, Options(tmp_path / "out", None, ""), stop_after(3))
    again = Options(tmp_path / "out", None, "", resume=True)
    if name == "Picky":
        launch(scenarios, again, MagicMock())
        return
    with pytest.raises(ScenarioError, match=r"unfinished run that cannot .* no state_dict"):
        launch(scenarios, again, MagicMock())
    with pytest.raises(StopError):  # it begins again
        launch(scenarios, replace(again, resume=name == "mute", redo=True), stop_after(1))


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        (flower("flwr.serverapp.strategy:FedTrimmed"), "did you mean 'FedTrimmedAvg'"),
        (flower("flwr.serverapp.strategy:Krum", "{n_malicious: 2}"), "no parameter 'n_malicious'"),
        (flower("flwr.serverapp.strategy:FedTrimmedAvg", "{beta: 0.7}"), "must be in the range"),
        (flower("mine.py:broken"), "must return a Flower strategy, this has no configure_train"),
        (flower("flwr.serverapp.strategy:FedAvg", "{min_available_nodes: 99}"), "wait for ever"),
        (
            flower("flwr.serverapp.strategy:FedAvg", "{fraction_evaluate: 1.0}"),
            "strategy: args.fraction_evaluate needs 0, got 1.0: clients evaluate nothing "
            "here, the server tests the model",
        ),
        ("{kind: flower, args: {}}", "strategy.path: is missing"),
        (
            flower("mine.py:waiting", "{min_train_nodes: 99}"),
            "strategy: FedAvg would wait for ever with min_train_nodes=99",
        ),
    ],
)
def test_a_strategy_that_does_not_fit_is_refused_while_the_scenario_loads(
    tmp_path: Path, spec: str, fault: str
) -> None:
    with pytest.raises(ScenarioError) as error:
        load_scenarios(scenario(tmp_path, {"it": spec}))
    assert fault in str(error.value)
    assert "scenario.yaml:" in str(error.value)
