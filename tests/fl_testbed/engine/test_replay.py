"""Recorded updates: the rule that a run used does the same again, and others can be tried."""

import json
from pathlib import Path
from shutil import copytree

import numpy as np
import pandas as pd
import pytest
from commands import SCENARIO, run, run_folders, succeed, write_scenario
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from clients.app import ShardClientApp
from fl_testbed import api
from fl_testbed.engine.inline_grid import InlineGrid
from fl_testbed.engine.recorded_updates import Recorded, Recorder, halved, restored
from fl_testbed.engine.run_folder import RunFolder, updates_file
from fl_testbed.report.comparison import compare
from fl_testbed.report.formats import markdown
from strategies.flower_arrays import ArrayView, record_of

RECORDED = """
record_updates: true
variants:
  mean: {}
  krum: {strategy.aggregation: {kind: multi_krum, n_malicious: 2}}
  agnostic: {strategy.reweighting: {kind: agnostic, step_size: 0.5}}
  restarted:  # lift first: rows are scaled in place
    strategy.reweighting: {kind: jtt, n_flagged: 4, factor: 5, warm_up_rounds: 2}
    strategy.order: lift_then_filter
  drawing:
    strategy.aggregation: {kind: coordinate_median}
    strategy.pre_aggregation: [{kind: bucketing, size: 2}]
  trained: {strategy.aggregation: {kind: fltrust}, sampling: {fraction: 0.5}}
  remembering: {strategy.aggregation: {kind: fldetector}}
  halves:
    attack: {kind: inner_product, scale: 1000000.0}
    strategy.aggregation: {kind: multi_krum, n_malicious: 2}
    record_updates: {dtype: float16}
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    write_scenario(folder, SCENARIO.replace("rounds: 4", "rounds: 3") + RECORDED)
    succeed("run", "scenario.yaml", "--out", "out", cwd=folder)
    return folder / "out"


def test_the_rule_that_a_run_used_gives_its_weights_to_the_byte(
    recorded: Path, tmp_path: Path
) -> None:
    said = succeed("replay", recorded, cwd=tmp_path)
    assert "8 of 8 replays gave the weights of the run" in said
    replays = run_folders(tmp_path / "replays")
    for key, folder in run_folders(recorded).items():
        variant = folder.parent.name
        twin = replays[key.replace(variant, f"{variant},replay=same")]
        assert (folder / "clients.csv").read_text() == (twin / "clients.csv").read_text(), key
        own, its = (json.loads((f / "summary.json").read_text()) for f in (folder, twin))
        assert {
            k: own[k] for k in ("suppression", "group_weight_ratio", "lifting")
        }.items() <= its.items(), key


def test_recording_whole_updates_changes_nothing(recorded: Path, tmp_path: Path) -> None:
    write_scenario(tmp_path, SCENARIO.replace("rounds: 4", "rounds: 3"))
    succeed("run", "scenario.yaml", "--out", "out", cwd=tmp_path)
    plain, kept = tmp_path / "out/small/default/seed-0", recorded / "small/mean/seed-0"
    for name in ("clients.csv", "rounds.csv", "model.safetensors"):
        assert (plain / name).read_bytes() == (kept / name).read_bytes()


def test_a_recorded_row_says_where_the_parameters_of_each_array_stand(tmp_path: Path) -> None:
    arrays = {"mean": np.zeros(2), "n_batches": np.array(3), "weight": np.zeros((2, 2))}
    record = record_of({name: a.astype(np.float32) if a.ndim else a for name, a in arrays.items()})
    (tmp_path / "round").write_bytes(Recorder("float32", record).content())
    with safe_open(tmp_path / "round", "np") as file:
        round_ = json.loads(file.metadata()["round"])
        assert file.get_tensor("rows").shape == (0, 6)
    assert round_["slices"] == {"mean": [0, 2], "weight": [2, 6]}


def test_a_recorded_round_is_the_same_bytes_every_time() -> None:
    recorder = Recorder("float32", record_of({"weight": np.zeros(2, dtype=np.float32)}))
    assert len({recorder.content() for _ in range(20)}) == 1


@pytest.mark.parametrize("variant", ["mean", "halves"])
def test_recorded_updates_are_those_that_the_strategy_saw(recorded: Path, variant: str) -> None:
    folder = recorded / "small" / variant / "seed-0"
    clients = pd.read_csv(folder / "clients.csv").query("round == 2").set_index("client")
    updates = Recorded(folder / updates_file(2)).updates()
    norms = {client: float(np.linalg.norm(update)) for client, update in updates.items()}
    assert norms == pytest.approx(clients["update_norm"].to_dict(), rel=1e-5)


def test_another_rule_hears_whom_it_would_have_heard(recorded: Path, tmp_path: Path) -> None:
    rule = "strategy.aggregation={kind: multi_krum, n_malicious: 2}"
    done = run("replay", recorded / "small" / "mean", "--set", rule, cwd=tmp_path)
    assert "to the byte" not in done.stdout
    assert done.stderr == ""
    folder = tmp_path / "replays/small/mean,replay=aggregation=multi_krum-2/seed-0"
    other = pd.read_csv(folder / "clients.csv")
    krum = pd.read_csv(recorded / "small/krum/seed-0/clients.csv")
    first = (other["round"] == 1, krum["round"] == 1)  # before the two runs part ways
    pd.testing.assert_frame_equal(other[first[0]], krum[first[1]])
    assert "mean,replay=aggregation=multi_krum-2" in succeed("compare", "replays", cwd=tmp_path)
    again = run("replay", "replays", cwd=tmp_path)
    assert again.returncode == 2
    assert (
        "is a replay, which has no recorded updates: give the run that it replays" in again.stderr
    )


def test_variants_give_a_replay_each_and_their_names(recorded: Path, tmp_path: Path) -> None:
    rules = {
        "mean": {},  # as the run itself is called
        "median": {"strategy.aggregation": {"kind": "coordinate_median"}},
    }
    found = api.replay(recorded / "small/mean", settings={"variants": rules}, out=tmp_path)
    assert [run.variant for run in found.runs] == ["mean,replay=mean", "mean,replay=median"]
    weights = found.clients.groupby("variant")["weight"].std()
    assert weights["mean,replay=median"] > 0
    assert weights["mean,replay=mean"] == pytest.approx(0, abs=1e-9)
    table = api.load_results(recorded / "small/mean", tmp_path).compare()
    assert len(table) == 3


def test_a_rule_that_asks_for_losses_finds_them_recorded(recorded: Path, tmp_path: Path) -> None:
    lift = "strategy.reweighting={kind: agnostic, step_size: 0.5}"
    succeed("replay", recorded / "small" / "mean", "--set", lift, cwd=tmp_path)
    (clients,) = (pd.read_csv(path) for path in tmp_path.rglob("clients.csv"))
    assert clients["lift"].nunique() > 1
    assert (clients["status"] == "ok").all()


@pytest.mark.parametrize(
    ("variant", "settings", "expected"),
    [
        ("mean", ["rounds=2"], "--set: rounds: cannot be changed in a replay"),
        ("mean", ["seed=1"], "--set: seed: cannot be changed in a replay"),
        ("mean", ["strategy.aggregation.n_maliciuos=1"], "unknown key"),
        ("mean", ["sweep.seed=[0, 1]"], "--set: seed: cannot be changed in a replay"),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    recorded: Path, tmp_path: Path, variant: str, settings: list[str], expected: str
) -> None:
    options = [part for text in settings for part in ("--set", text)]
    done = run("replay", recorded / "small" / variant, *options, cwd=tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_no_replay_takes_the_place_of_another(recorded: Path, tmp_path: Path) -> None:
    for copy in ("one", "two"):
        copytree(recorded / "small" / "mean", tmp_path / copy)
    done = run("replay", "one", "two", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("two/seed-0: its replay would go to ")
    assert not (tmp_path / "replays").exists()

    said = succeed("replay", "one", cwd=tmp_path)
    (table,) = (tmp_path / "replays").rglob("clients.csv")
    written = table.stat().st_mtime_ns
    assert succeed("replay", "one", cwd=tmp_path) == said
    assert table.stat().st_mtime_ns == written
    clients = tmp_path / "two/seed-0/clients.csv"  # as another device might have it
    clients.write_text(clients.read_text().replace("0.", "1.", 1))
    done = run("replay", "two", cwd=tmp_path)
    assert done.returncode == 2
    assert "replay=same/seed-0: holds a replay of another run: add --redo" in done.stderr
    succeed("replay", "two", "--redo", cwd=tmp_path)
    assert table.stat().st_mtime_ns > written
    scenario = tmp_path / "two/seed-0/scenario.yaml"
    scenario.write_text(scenario.read_text().replace("lr: 0.1", "lr: 0.2"))
    done = run("replay", "two", cwd=tmp_path)
    assert done.returncode == 2
    assert "replay=same/seed-0: holds a run of another scenario" in done.stderr


def test_a_replay_that_another_command_is_writing_is_left_to_it(
    recorded: Path, tmp_path: Path
) -> None:
    first = RunFolder(tmp_path / "replays/small/mean,replay=same/seed-0")
    first.ownership.claim()
    second = run("replay", recorded / "small" / "mean", cwd=tmp_path)
    first.release()
    assert second.returncode == 2
    assert "replay=same/seed-0: is being written by another command: let it" in second.stderr
    assert not (first.path / "clients.csv").exists()


def test_a_replay_without_data_says_what_it_needs(recorded: Path, tmp_path: Path) -> None:
    copytree(recorded / "small" / "mean", tmp_path / "mean")
    scenario = tmp_path / "mean/seed-0/scenario.yaml"
    scenario.write_text(scenario.read_text().replace("kind: digits", "kind: mnist"))
    done = run("replay", "mean", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("mean/seed-0/scenario.yaml:6: dataset: MNIST needs a data folder")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_replay_sees_who_failed_who_was_silent_and_what_could_not_be_used(
    tmp_path: Path, monkeypatch, dtype: str
) -> None:
    train, execute = ShardClientApp._train, InlineGrid.execute

    def bad(self, message, context):
        client = context.node_config["partition-id"]
        if client == 0:
            raise RuntimeError("out of battery")
        reply = train(self, message, context)
        arrays = reply.content["arrays"]
        if client == 1:
            arrays["extra"] = ArrayView(np.zeros(3, dtype=np.float32))
        if client == 2:
            arrays[next(iter(arrays))] = ArrayView(np.zeros((15, 64), dtype=np.float32))
        if client == 3:
            del reply.content["arrays"]
        return reply

    monkeypatch.setattr(ShardClientApp, "_train", bad)
    monkeypatch.setattr(InlineGrid, "execute", lambda *a: (o for o in execute(*a) if o.client != 4))
    write_scenario(tmp_path, SCENARIO.replace("rounds: 4", "rounds: 1"))
    recording = f"record_updates={{dtype: {dtype}}}"
    succeed("run", "scenario.yaml", "--out", "out", "--set", recording, cwd=tmp_path)
    assert "1 of 1 replays gave the weights of the run" in succeed("replay", "out", cwd=tmp_path)
    statuses = pd.read_csv(tmp_path / "out/small/default/seed-0/clients.csv")["status"].tolist()
    assert statuses[0].startswith("failed: RuntimeError: out of battery")
    assert statuses[1:6] == [
        "rejected: arrays do not match the model's, unknown extra",
        "rejected: array 2.weight has shape [15, 64], needs [16, 64]",
        "rejected: needs one ArrayRecord, got 0",
        "failed: no reply",
        "ok",
    ]


@pytest.mark.parametrize("round_", [2, 3])
def test_a_record_with_a_gap_is_refused(recorded: Path, tmp_path: Path, round_: int) -> None:
    copytree(recorded / "small" / "mean", tmp_path / "mean")
    (tmp_path / "mean" / "seed-0" / updates_file(round_)).unlink()
    done = run("replay", "mean", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"mean/seed-0: round-0000{round_}.safetensors is missing: remove the folder to run it "
        "again\n"
    )


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        (updates_file(2), 1000, "round-00002.safetensors is not a recorded round"),
        ("clients.csv", 0, "clients.csv is not what a run writes"),
    ],
)
def test_a_record_that_is_not_whole_is_named(
    recorded: Path, tmp_path: Path, name: str, size: int, said: str
) -> None:
    copytree(recorded / "small" / "mean", tmp_path / "mean")
    file = tmp_path / "mean" / "seed-0" / name
    file.write_bytes(file.read_bytes()[:size])
    done = run("replay", "mean", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"mean/seed-0: {said}")
    assert len(done.stderr.splitlines()) == 1


def test_a_run_on_other_data_is_refused(recorded: Path, tmp_path: Path) -> None:
    copytree(recorded / "small" / "mean", tmp_path / "mean")
    file = tmp_path / "mean" / "seed-0" / "environment.json"
    environment = json.loads(file.read_text("utf-8"))
    environment["data"]["fingerprint"] = "another"
    file.write_text(json.dumps(environment), encoding="utf-8")
    done = run("replay", "mean", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("mean/seed-0: is a run on other data (fingerprint another, now ")
    assert len(done.stderr.splitlines()) == 1


def test_a_rule_that_hears_nobody_is_said_to_have_moved_nothing(
    recorded: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "from strategies.aggregation import TooFewClientsError\n"
        "def picky(updates):\n"
        "    raise TooFewClientsError('needs more')\n"
    )
    rule = {"strategy.aggregation": {"kind": f"{path}:picky"}}
    (found,) = api.replay(recorded / "small/mean", settings=rule, out=tmp_path).runs
    assert (
        "round 3 left the model unchanged: needs more\n"
        in (found.folder / "events.log").read_text()
    )
    assert "3 of 3 rounds left the model unchanged, events.log says why" in markdown(
        compare([found])
    )


def test_a_users_rule_that_fails_is_blamed_and_no_run_was_stopped(
    recorded: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text("def broken(updates):\n    raise KeyError('w')\n")
    rule = "strategy.aggregation={kind: 'own.py:broken'}"
    done = run("replay", recorded / "small" / "mean", "--set", rule, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}/own.py:2: broken raised KeyError: 'w'\n"


def test_a_run_that_recorded_nothing_is_refused(recorded: Path, tmp_path: Path) -> None:
    write_scenario(tmp_path, SCENARIO.replace("rounds: 4", "rounds: 1"))
    succeed("run", "scenario.yaml", "--out", "out", cwd=tmp_path)
    done = run("replay", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert "has no recorded updates: run it again with record_updates=true and" in done.stderr
    (tmp_path / "out/small/default/seed-0/summary.json").unlink()
    done = run("replay", "out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "out: holds no finished run, and only finished ones can be replayed\n",
    )


def test_validate_says_how_much_will_be_recorded(tmp_path: Path) -> None:
    write_scenario(tmp_path, SCENARIO + "record_updates: {dtype: float16}\n")
    said = succeed("validate", "scenario.yaml", cwd=tmp_path)
    assert "small: 1 run " in said
    # 4 rounds × 1,210 parameters × (12 clients × 2 bytes + 4 bytes of the model)
    assert f"{4 * 1210 * 28 / 2**20:.1f} MiB" in said


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20), st.integers(-100, 100))
def test_half_precision_is_relative_to_the_largest_entry(values: list[float], power: int) -> None:
    update = np.ldexp(np.array(values, dtype=np.float32), power)
    again = restored(np.zeros_like(update), *halved(update))
    assert np.abs(again - update).max() <= np.abs(update).max() * 2**-11
