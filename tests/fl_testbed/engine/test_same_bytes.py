"""The same scenario gives the same bytes, whatever it runs on."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import SCENARIO, assert_same_results, run_folders, succeed, write_scenario

VARIANTS = """
variants:
  multi_krum: {strategy.aggregation: {kind: multi_krum, n_malicious: 2}}
  sampled: {sampling: {fraction: 0.5}, strategy.reweighting: {kind: agnostic, step_size: 0.1}}
  fltrust: {strategy.aggregation: {kind: fltrust}}
  jtt: {strategy.reweighting: {kind: jtt, n_flagged: 4, factor: 5, warm_up_rounds: 2}}
  ditto: {local_method: {kind: ditto}, sampling: {fraction: 0.5}}
  cohort: {training: {cohort: 5}}
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inline")
    write_scenario(folder, SCENARIO + VARIANTS)
    succeed("run", "scenario.yaml", "--out", "out", cwd=folder)
    return folder


@pytest.mark.parametrize(
    ("workers", "parallel"), [(1, "clients"), (2, "clients"), (2, "runs")], ids=str
)
def test_ray_gives_the_bytes_of_inline(
    reference: Path, tmp_path: Path, workers: int, parallel: str
) -> None:
    write_scenario(tmp_path, SCENARIO + VARIANTS)
    how = ("--engine", "ray", "--workers", workers, "--set", f"engine.parallel={parallel}")
    succeed("run", "scenario.yaml", "--out", "out", *how, cwd=tmp_path)
    assert_same_results(reference / "out", tmp_path / "out")


def test_the_resolved_scenario_in_a_run_folder_gives_the_same_run(
    reference: Path, tmp_path: Path
) -> None:
    original = run_folders(reference / "out")["small/sampled/seed-0"]
    succeed("run", original / "scenario.yaml", "--out", "again", cwd=tmp_path)
    again = run_folders(tmp_path / "again")["small/sampled/seed-0"]
    for name in ("scenario.yaml", "clients.csv", "model.safetensors", "summary.json"):
        assert (original / name).read_bytes() == (again / name).read_bytes()


def test_a_finished_run_is_not_run_again(reference: Path) -> None:
    folder = run_folders(reference / "out")["small/fltrust/seed-0"]
    before = (folder / "timings.csv").stat().st_mtime_ns
    said = succeed("run", "scenario.yaml", "--out", "out", cwd=reference)
    assert "done before" in said
    assert (folder / "timings.csv").stat().st_mtime_ns == before


def test_seeds_differ(tmp_path: Path) -> None:
    write_scenario(tmp_path)
    one = ("--set", "sweep={seed: [0, 1]}", "--set", "rounds=1")
    succeed("run", "scenario.yaml", "--out", "out", *one, cwd=tmp_path)
    folders = run_folders(tmp_path / "out")
    first, second = (folders[f"small/default/seed-{seed}"] for seed in (0, 1))
    assert (first / "model.safetensors").read_bytes() != (second / "model.safetensors").read_bytes()


def test_flowers_own_engine_agrees_up_to_the_order_of_sums(reference: Path, tmp_path: Path) -> None:
    only = "variants={multi_krum: {strategy.aggregation: {kind: multi_krum, n_malicious: 2}}}"
    write_scenario(tmp_path)
    said = ("run", "scenario.yaml", "--out", "out", "--engine", "flower", "--set", only)
    succeed(*said, cwd=tmp_path)
    key = "small/multi_krum/seed-0"
    ours = pd.read_csv(run_folders(reference / "out")[key] / "clients.csv")
    theirs = pd.read_csv(run_folders(tmp_path / "out")[key] / "clients.csv")
    for column in ("weight", "update_norm", "suspicion", "train_loss"):
        np.testing.assert_allclose(ours[column], theirs[column], rtol=1e-4, err_msg=column)
