"""Which device a run computes on, and what happens when its memory is short."""

import json
import re
from pathlib import Path

import pytest
import torch
from commands import SCENARIO, run, run_folders, succeed, write_scenario

from clients import trainer
from fl_testbed.engine import placement
from fl_testbed.engine.placement import largest_cohort, training_memory
from fl_testbed.engine.ray_pool import gpu_share
from fl_testbed.scenario import EngineSpec, ScenarioError, load_scenarios

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
COHORT = ("--set", "training.cohort=12", "--set", "rounds=2", "--set", "engine.device=cpu")
TINY = ("--set", "engine.memory_limit_mib=0.3")


def decisions(folder: Path) -> list[str]:
    return json.loads((folder / "environment.json").read_text())["decisions"]


def test_a_tiny_limit_ends_in_a_finished_run_with_smaller_cohorts_and_a_line_that_says_so(
    tmp_path: Path,
) -> None:
    write_scenario(tmp_path)
    said = succeed("run", "scenario.yaml", "--out", "out", *COHORT, *TINY, cwd=tmp_path)
    folder = run_folders(tmp_path / "out")["small/default/seed-0"]
    (line,) = decisions(folder)
    size = re.match(r"cpu: cohorts of (\d+) instead of 12 clients", line)
    assert size is not None
    assert 1 < int(size[1]) < 12
    assert said.count(line) == 1
    assert (folder / "events.log").read_text().count(line) == 1
    assert json.loads((folder / "summary.json").read_text())["unusable_replies"] == 0


def test_running_out_of_memory_in_a_round_halves_the_cohorts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scenario(tmp_path)
    # The first plan is far too large, as where other processes take memory in the meantime.
    monkeypatch.setattr(trainer, "SHARE_OF_FREE", 100.0)
    said = succeed("run", "scenario.yaml", "--out", "out", *COHORT, *TINY, cwd=tmp_path)
    folder = run_folders(tmp_path / "out")["small/default/seed-0"]
    assert decisions(folder) == ["cpu: out of memory, cohorts of 6 instead of 12"]
    assert "cpu: out of memory, cohorts of 6 instead of 12" in said
    assert json.loads((folder / "summary.json").read_text())["unusable_replies"] == 0


def test_cohorts_have_what_a_job_is_left_and_not_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placement, "free_memory", lambda: 80)
    assert training_memory(EngineSpec(device="cpu")).free() == 80


@needs_no_gpu
def test_auto_says_that_there_is_no_gpu_once_for_all_runs(tmp_path: Path) -> None:
    write_scenario(tmp_path)
    # There is room for cohorts of 12, so there is nothing to say of them.
    two = ("--set", "sweep={seed: [0, 1]}", "--set", "rounds=1", "--set", "training.cohort=12")
    said = succeed("run", "scenario.yaml", "--out", "out", *two, cwd=tmp_path)
    assert said.count("server on the CPU: torch sees no GPU") == 1
    for folder in run_folders(tmp_path / "out").values():
        assert decisions(folder) == ["server on the CPU: torch sees no GPU"]


@needs_no_gpu
def test_a_gpu_that_is_not_there_is_a_fault_of_the_scenario(tmp_path: Path) -> None:
    write_scenario(tmp_path)
    done = run("run", "scenario.yaml", "--set", "engine.device=cuda", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "--set: engine.device: cuda is not there, torch or Ray can use 0 GPUs: choose auto or cpu"
    ]


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("engine.device=gpu", "needs auto, cpu, cuda, or one GPU of several such as cuda:1"),
        ("engine={kind: ray, device: 'cuda:1'}", "cuda:1 is a single GPU, but Ray"),
        ("training.cohort=0", "training.cohort: needs"),
    ],
)
def test_devices_and_cohorts_that_make_no_sense_are_faults(
    tmp_path: Path, setting: str, text: str
) -> None:
    with pytest.raises(ScenarioError) as error:
        load_scenarios(write_scenario(tmp_path), [setting])
    (fault,) = error.value.faults
    assert text in str(fault)


def test_auto_is_one_client_on_a_cpu_and_all_of_the_round_on_gpus(tmp_path: Path) -> None:
    path = write_scenario(tmp_path, SCENARIO + "sampling: {fraction: 0.6}\n")  # 7 of 12
    (scenario,) = load_scenarios(path, [])
    assert largest_cohort(scenario, torch.device("cpu")) == 1
    assert largest_cohort(scenario, torch.device("cuda:0")) == 7
    assert largest_cohort(scenario, torch.device("cuda:0"), n_workers=2) == 4
    (named,) = load_scenarios(path, ["training.cohort=3"])
    assert largest_cohort(named, torch.device("cpu")) == 3
    (drawing,) = load_scenarios(path, ["model={kind: mlp, hidden: [4], dropout: 0.5}"])
    assert largest_cohort(drawing, torch.device("cuda:0")) == 1


def test_no_worker_gets_parts_of_two_gpus() -> None:
    # gpus, workers -> of a GPU: whole ones as long as there are enough.
    shares = {(0, 3): 0.0, (2, 2): 1.0, (4, 2): 1.0, (1, 3): 1 / 3, (2, 3): 1 / 2, (2, 5): 1 / 3}
    for (n_gpus, n_workers), share in shares.items():
        assert gpu_share(n_gpus, n_workers) == share
