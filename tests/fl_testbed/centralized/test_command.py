"""Scenarios on pooled data through the real command."""

import json
from pathlib import Path

import pandas as pd
import pytest
from commands import assert_same_results, run_folders, succeed, write_scenario

from fl_testbed.centralized import experiment
from fl_testbed.engine.datasets import DatasetCache
from fl_testbed.report.html import write_report
from fl_testbed.report.results import find_runs
from fl_testbed.scenario import ScenarioError, load_scenarios

SCENARIO = """
kind: centralized
name: pooled
dataset:
  kind: composite
  foreground: {kind: digits}
  background: {kind: colours, colours: [red, green]}
  classes: [3, 5]
  correlation: 0.9
model: {kind: mlp, hidden: [8]}
training: {lr: 0.1, batch_size: 16, epochs: 10}
poison:
  kind: dirty_label_backdoor
  trigger: {kind: patch, size: 3}
  target: 1
  fraction: 0.1
attacker: {groups: ["3, red"]}
variants:
  erm: {stages: []}
  jtt: {stages: [{kind: jtt, epochs: 1}]}
  filtered: {stages: [{kind: loss_filter, epochs: 1, fraction: 0.1}, {kind: jtt, epochs: 1}]}
  mimic:
    poison: {kind: mimic_backdoor, trigger: {kind: patch, size: 3}, target: 1, fraction: 0.1}
  subpopulation:
    poison: {kind: subpopulation, fraction: 0.1, n_clusters: 3, surrogate_epochs: 1}
    attacker.groups: null
  matched:
    poison: {kind: gradient_matching, source: 0, target: 1, steps: 2, restarts: 1}
    attacker.groups: null
"""
FILES = (
    "outcome.csv",
    "groups.csv",
    "examples.csv",
    "epochs.csv",
    "scores.csv",
    "summary.json",
    "model.safetensors",
    "scenario.yaml",
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inline")
    write_scenario(folder, SCENARIO)
    said = succeed("run", "scenario.yaml", "--out", "out", cwd=folder)
    assert "[6/6]" in said
    return folder / "out"


def test_ray_gives_the_bytes_of_inline(reference: Path, tmp_path: Path) -> None:
    write_scenario(tmp_path, SCENARIO)
    how = ("--engine", "ray", "--workers", 1)
    succeed("run", "scenario.yaml", "--out", "out", *how, cwd=tmp_path)
    assert_same_results(reference, tmp_path / "out", FILES)


def summary(reference: Path, variant: str) -> dict:
    return json.loads((reference / "pooled" / variant / "seed-0" / "summary.json").read_text())


def test_a_summary_has_the_figures_of_a_federated_one_and_those_of_the_twin(reference: Path):
    jtt, erm = summary(reference, "jtt"), summary(reference, "erm")
    assert erm["suppression"]["poisoned"]["weight_ratio"] == 1
    assert set(erm["group_weight_ratio"].values()) == {1.0}
    assert set(erm["group_weight_ratio"]) == set(erm["group_accuracy"])
    assert max(jtt["group_weight_ratio"].values()) > 1.1
    assert jtt["suppression"]["poisoned"]["weight_ratio"] > 1
    assert erm["final"]["attack_success_rate"] > erm["final"]["trigger_rate_unpoisoned"]
    assert jtt["final"].keys() == erm["final"].keys()
    outcome = pd.read_csv(reference / "pooled" / "erm" / "seed-0" / "outcome.csv")
    rightly = outcome.set_index("trained_on")["attacked_accuracy"]
    assert erm["final"]["damage"] == pytest.approx(rightly["clean"] - rightly["poisoned"])
    assert erm["final"]["damage"] > 0
    epochs = pd.read_csv(reference / "pooled" / "jtt" / "seed-0" / "epochs.csv")
    identified = epochs[epochs["training"] == "1_jtt"].iloc[-1]
    assert jtt["separation"]["auc_all"] == pytest.approx(identified["auc_all"])
    assert set(jtt["flagged"]["1_jtt"]) == {"honest_majority", "honest_minority", "poisoned"}
    filtered = summary(reference, "filtered")["suppression"]
    assert filtered["honest_majority"]["retention"] > 0
    assert -1 <= filtered["filter_bias"] <= 1
    assert erm["suppression"]["filter_bias"] is None


def test_retention_and_flags_agree_with_the_ledger(reference: Path):
    ledger = pd.read_csv(reference / "pooled" / "filtered" / "seed-0" / "examples.csv")
    figures = summary(reference, "filtered")
    for role, rows in ledger.groupby("role"):
        retention = figures["suppression"][role]["retention"]
        assert retention == pytest.approx(1 - rows["flagged.1_loss_filter"].mean())
        assert figures["flagged"]["1_loss_filter"][role] == pytest.approx(1 - retention)
        share = rows["weight"].sum() / len(rows)
        assert figures["suppression"][role]["weight_ratio"] == pytest.approx(share, rel=1e-6)


def test_every_poison_leaves_its_mark(reference: Path):
    for variant in ("mimic", "subpopulation", "matched"):
        ledger = pd.read_csv(reference / "pooled" / variant / "seed-0" / "examples.csv")
        n_poisoned = (ledger["role"] == "poisoned").sum()
        assert summary(reference, variant)["n_poisoned"] == n_poisoned > 0, variant
        assert "damage" in summary(reference, variant)["final"]


def test_the_resolved_scenario_gives_the_same_run_and_a_finished_one_is_kept(
    reference: Path, tmp_path: Path
):
    folder = run_folders(reference)["pooled/jtt/seed-0"]
    out = tmp_path / "again"
    succeed("run", folder / "scenario.yaml", "--out", out, cwd=tmp_path)
    again = run_folders(out)["pooled/jtt/seed-0"]
    assert (again / "summary.json").read_bytes() == (folder / "summary.json").read_bytes()
    said = succeed("run", folder / "scenario.yaml", "--out", out, cwd=tmp_path)
    assert "done before" in said


CHANGES = {
    "a group that is not there": (
        SCENARIO.replace('"3, red"', '"3, blue"'),
        "scenario.yaml:4, erm and 3 more: dataset: there is no group '3, blue': attacker",
    ),
    "a class that is not there": (
        SCENARIO.replace("target: 1", "target: 7", 1),
        "scenario.yaml:12, erm and 2 more: poison.target needs a class from 0 to 1, got 7",
    ),
    "a source that is the target": (
        SCENARIO.replace("source: 0, target: 1", "source: 1, target: 1"),
        "scenario.yaml:28: poison.source: needs another class than the target, got 1 for both",
    ),
    "a trigger that does not fit": (
        SCENARIO.replace("size: 3", "size: 9", 1),
        "scenario.yaml:12, erm and 2 more: poison: a 9 × 9 patch with margin 0 does not fit",
    ),
    "a key of federated scenarios": (
        SCENARIO + "rounds: 3\n",
        "scenario.yaml:30: rounds: unknown key",
    ),
    "a stage that does not exist": (
        SCENARIO.replace("kind: loss_filter", "kind: los_filter"),
        "scenario.yaml:21: stages.0.kind: unknown kind 'los_filter', did you mean 'loss_filter'?",
    ),
    "no kind": (
        SCENARIO.replace("kind: centralized", ""),
        "scenario.yaml: kind: is missing: attacker is for pooled data, so write kind: centralized",
    ),
    "a name where a kind belongs in a list": (
        SCENARIO + "  short: {stages: [jtt]}\n",
        "stages.0: needs a mapping, such as {kind: jtt}, got 'jtt'",
    ),
    "another kind of scenario": (
        SCENARIO.replace("kind: centralized", "kind: central"),
        "scenario.yaml:2: kind: unknown kind 'central'; write kind: centralized for pooled data",
    ),
    "a model of one's own that cannot be built": (
        SCENARIO.replace("{kind: mlp, hidden: [8]}", "{kind: 'model.py:build'}"),
        "model.py:2: build raised ZeroDivisionError",
    ),
    "an engine for federations": (
        SCENARIO + "engine: {kind: flower}\n",
        "scenario.yaml:30: engine.kind: flower is only for federations",
    ),
    "more clusters than examples": (
        SCENARIO.replace("n_clusters: 3", "n_clusters: 3000"),
        "scenario.yaml:25, subpopulation: poison: 3000 clusters need at least as many examples",
    ),
    "a clean label that too few have": (
        SCENARIO.replace("target: 1, steps", "target: 1, fraction: 1.0, steps"),
        "scenario.yaml:28, matched: poison: the poison needs 256 examples that it can",
    ),
    "more victims than there are": (
        SCENARIO.replace("steps: 2", "n_victims: 2000, steps: 2"),
        "scenario.yaml:28, matched: poison.n_victims: needs at most ",
    ),
    "nobody to be like": (
        SCENARIO.replace("  correlation: 0.9", "  minority: {kind: inverted}").replace(
            'attacker: {groups: ["3, red"]}', "minority_fraction: 0.0"
        ),
        "scenario.yaml:23, mimic: poison: the poison has no minority to imitate",
    ),
}


@pytest.mark.parametrize(("text", "fault"), CHANGES.values(), ids=CHANGES.keys())
def test_wrong_input_is_a_readable_fault(tmp_path: Path, text: str, fault: str):
    (tmp_path / "model.py").write_text("def build(input_shape):\n    return 1 / 0\n")
    with pytest.raises(ScenarioError) as error:
        experiment.check(load_scenarios(write_scenario(tmp_path, text)), DatasetCache(None))
    assert fault in str(error.value)


def test_named_values_of_a_sweep_name_the_variants(tmp_path: Path):
    sweep = "sweep: {poison: {none: {kind: none}, flip: {kind: label_flip}}, seed: [3]}\n"
    text = SCENARIO.split("variants:")[0] + sweep
    scenarios = load_scenarios(write_scenario(tmp_path, text))
    assert [scenario.variant for scenario in scenarios] == ["poison=none", "poison=flip"]
    assert [scenario.poison.kind for scenario in scenarios] == ["none", "label_flip"]


def test_validate_shows_stages_and_groups(tmp_path: Path):
    write_scenario(tmp_path, SCENARIO)
    said = succeed("validate", "scenario.yaml", cwd=tmp_path)
    assert "loss_filter → jtt" in said
    (row,) = (line for line in said.splitlines() if "5, red (minority)" in line)
    assert [cell.strip() for cell in row.split("│")][2:6] == ["4.9%", "14", "13", "44"]


def test_a_report_shows_what_runs_on_pooled_data_have(reference: Path, tmp_path: Path) -> None:
    page = write_report(tmp_path, find_runs([reference])).read_text()
    assert "6 runs: 6 done" in page
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"tension", "suppression"}
