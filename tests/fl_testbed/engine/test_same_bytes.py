"""The same scenario gives the same bytes, whatever it runs on."""

from pathlib import Path

import pytest
import torch
from commands import (
    ATTACKED,
    SCENARIO,
    assert_same_results,
    run_folders,
    succeed,
    write_scenario,
)
from safetensors.torch import save_file

VARIANTS = """
variants:
  multi_krum: {strategy.aggregation: {kind: multi_krum, n_malicious: 2}}
  sampled:
    sampling: {fraction: 0.5, attackers: 1}
    strategy.reweighting: {kind: agnostic, step_size: 0.1}
  fltrust:
    strategy.aggregation: {kind: fltrust}
    sampling: {kind: "mine.py:rare", fraction: 0.75}
  jtt: {strategy.reweighting: {kind: jtt, n_flagged: 4, factor: 5, warm_up_rounds: 2}}
  ditto:
    local_method: {kind: ditto}
    sampling: {kind: "mine.py:rare", fraction: 0.5}
    clients.dropout: 0.3
  cohort:
    training: {cohort: 5, local_steps: 3}
    local_method: {kind: worker_momentum}
    poison: {kind: adaptive_backdoor, target: 0, fraction: 0.5, epochs: 2}
  continued:
    init: init.safetensors
    poison: {kind: subpopulation, fraction: 0.5, surrogate_epochs: 1}
    strategy.reweighting: {kind: jtt, n_flagged: 4, factor: 5, warm_up_rounds: 2}
"""
RARE = """
DRAWN = []  # no run finds here what another has left


def rare(clients, n, weights):
    DRAWN.append(n)
    return clients[weights.argsort()[-n:] - len(DRAWN)]  # NaN is last
"""
INIT = {"2.weight": (16, 64), "2.bias": (16,), "4.weight": (10, 16), "4.bias": (10,)}


def run_all(folder: Path, *how: object) -> None:
    write_scenario(folder, SCENARIO + VARIANTS)
    generator = torch.Generator().manual_seed(0)
    model = {name: torch.randn(shape, generator=generator) / 8 for name, shape in INIT.items()}
    save_file(model, folder / "init.safetensors")
    (folder / "attacked.yaml").write_text(ATTACKED)
    (folder / "mine.py").write_text(RARE)
    files, short = ("scenario.yaml", "attacked.yaml"), ("--set", "rounds=3")
    succeed("run", *files, "--out", "out", *short, *how, cwd=folder)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inline")
    run_all(folder)
    return folder


@pytest.mark.parametrize("parallel", ["clients", "runs"])
def test_ray_gives_the_bytes_of_inline(reference: Path, tmp_path: Path, parallel: str) -> None:
    how = ("--engine", "ray", "--workers", 2, "--set", f"engine.parallel={parallel}")
    run_all(tmp_path, *how)
    assert_same_results(reference / "out", tmp_path / "out")
    inline, ray = (folder / "out" / "small" / "continued" for folder in (reference, tmp_path))
    assert_same_results(inline, ray, ("scenario.yaml", "init.safetensors"))


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
    said = succeed("run", "scenario.yaml", "--out", "out", "--set", "rounds=3", cwd=reference)
    assert "done before" in said
    assert (folder / "timings.csv").stat().st_mtime_ns == before


def test_seeds_differ(tmp_path: Path) -> None:
    write_scenario(tmp_path)
    one = ("--set", "sweep={seed: [0, 1]}", "--set", "rounds=1")
    succeed("run", "scenario.yaml", "--out", "out", *one, cwd=tmp_path)
    folders = run_folders(tmp_path / "out")
    first, second = (folders[f"small/default/seed-{seed}"] for seed in (0, 1))
    assert (first / "model.safetensors").read_bytes() != (second / "model.safetensors").read_bytes()
