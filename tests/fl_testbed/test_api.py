"""Running from a notebook."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
import torch
from commands import SCENARIO

from fl_testbed import api
from fl_testbed.engine import flower_engine, ray_runs
from fl_testbed.engine.errors import PoolError
from fl_testbed.engine.run_folder import CHECKPOINT, RunFolder
from fl_testbed.engine.threads import threads_given_back


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for name in ("small", "other"):
        text = SCENARIO.replace("rounds: 4", "rounds: 1").replace("name: small", f"name: {name}")
        paths.append(tmp_path / f"{name}.yaml")
        paths[-1].write_text(f"{text}sweep: {{seed: [0, 1]}}\n")
    return paths


def test_of_several_files_only_those_runs_that_are_wanted(files, tmp_path):
    out = tmp_path / "runs"
    with threads_given_back():
        torch.set_num_threads(3)
        done = api.run(files, out=out, only=lambda run: run.seed == 1)
        assert torch.get_num_threads() == 3
    assert [(run.name, run.seed) for run in done.runs] == [("small", 1), ("other", 1)]
    assert not list(out.rglob("seed-0"))
    nothing = api.run(files, out=out, only=lambda run: False)
    assert nothing.runs == []
    assert nothing.compare().empty
    assert nothing._repr_markdown_() is None
    copy = done.runs[0]._replace(folder=tmp_path)
    assert api.Results([*done.runs, copy])._repr_markdown_() is None
    assert "**small and other: who was heard**" in str(done._repr_markdown_())


def test_variants_among_the_settings_keep_their_order(files):
    seen = []
    settings = {"variants": {"mine": {}, "another": {}}, "sweep.seed": [0]}
    api.run(files[0], settings, only=lambda run: seen.append(run.variant))
    assert seen == ["mine", "another"]


@pytest.mark.parametrize(
    ("named", "is_part"),
    [({}, False), ({"settings": {"seed": 1}}, True), ({"variants": "default"}, True)],
)
def test_one_seed_or_variant_is_a_part_of_a_sweep(named, is_part, files, monkeypatch):
    def stopped(scenarios, options, *more):
        return [f"part: {options.is_part}"]

    monkeypatch.setattr(api, "launch", stopped)
    with pytest.raises(api.RunFailedError, match=f"part: {is_part}"):
        api.run(files[0], **named)


def test_a_setting_that_yaml_does_not_have_is_a_fault(files):
    with pytest.raises(
        api.ScenarioError, match=r"settings: training\.lr: needs plain Python .* got np"
    ) as caught:
        api.run(files[0], {"training.lr": np.float64(0.1)})
    assert len(caught.traceback) == 2  # a notebook shows each frame with its lines


def test_an_unfinished_run_says_how_a_notebook_goes_on_with_it(files, tmp_path):
    out = tmp_path / "runs"
    api.run(files[0], out=out, only=lambda run: run.seed == 0)
    folder = RunFolder(out / "small/default/seed-0")
    (folder.path / "summary.json").unlink()
    folder.write_bytes(CHECKPOINT, b"")
    with pytest.raises(api.ScenarioError, match="unfinished run: add resume=True to continue it"):
        api.run(files[0], out=out)
    with pytest.raises(api.ScenarioError, match=r"add redo=True to replace it, .* another out$"):
        api.run(files[0], {"training.lr": 0.2}, out=out)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rounds": "many"}, "^settings: rounds: needs"),
        ({"dataset.kind": "mnist"}, "pass data_dir=DIR or set .* fetch mnist --data-dir DIR$"),
    ],
)
def test_a_fault_calls_options_as_a_notebook_does(changed, said, files, monkeypatch):
    monkeypatch.delenv("FL_TESTBED_DATA", raising=False)
    with pytest.raises(api.ScenarioError, match=said):
        api.run(files[0], changed)


WITH_GLASSES = """
import numpy as np
from fl_testbed.data import Dataset, Examples

def faces(rng):
    def draw(n):
        images = rng.random((n, 1, 8, 8)).astype(np.float32)
        return Examples(images, rng.integers(0, 2, n), {"glasses": np.arange(n) % 4 // 3})

    return Dataset("faces", draw(800), draw(100), ("a", "b"), {"glasses": ("None", "NA")})
"""


@pytest.mark.parametrize("engine", ["ray", "flower"])
def test_a_cluster_that_the_notebook_has_already_is_left_alone(
    engine, files, tmp_path, monkeypatch
):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("that was the notebook's own"))
    with pytest.raises(PoolError, match="uses a Ray cluster already"):
        api.run(files, out=tmp_path / "runs", engine=engine)


@pytest.mark.parametrize("engine", ["ray", "flower"])
def test_other_code_that_workers_would_run_is_refused_before_ray_starts(
    engine, files, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clients.py").touch()
    with pytest.raises(PoolError, match=r"would run \S+clients.py in place of"):
        api.run(files, out=tmp_path / "runs", engine=engine)


@pytest.mark.parametrize("engine", ["ray", "flower"])
def test_a_ctrl_c_while_ray_starts_leaves_no_cluster_in_the_way_of_the_next_run(
    engine, files, tmp_path, monkeypatch
):
    def interrupted(*arguments, **named):
        raise KeyboardInterrupt

    ended = []
    monkeypatch.setattr(ray_runs, "RayPool", interrupted)
    monkeypatch.setattr(flower_engine, "run_simulation", interrupted)
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))
    with pytest.raises(KeyboardInterrupt, match=r"resume=True\) goes on with unfinished runs"):
        api.run(files, out=tmp_path / "runs", engine=engine)
    assert ended


def test_what_keeps_flower_from_starting_is_told(files, tmp_path, monkeypatch):
    def ended(backend_config, **named):
        cause = OSError(f"path too long on {backend_config['init_args']['num_cpus']} cores")
        raise RuntimeError("An error was encountered.") from cause

    monkeypatch.setattr(flower_engine, "cores_allotted", lambda: 3)
    monkeypatch.setattr(flower_engine, "run_simulation", ended)
    with pytest.raises(api.RunFailedError, match="failed: OSError: path too long on 3 cores"):
        api.run(files[0], out=tmp_path / "runs", engine="flower")


def test_groups_and_variants_may_have_the_names_of_missing_values(tmp_path):
    (tmp_path / "own.py").write_text(WITH_GLASSES)
    dataset = "{kind: 'own.py:faces', minority: {kind: attributes, by: [glasses], groups: [NA]}}"
    text = SCENARIO.replace("rounds: 4", "rounds: 1").replace("{kind: digits}", dataset)
    (tmp_path / "scenario.yaml").write_text(f"{text}variants: {{null: {{}}}}\n")
    done = api.run(tmp_path / "scenario.yaml", out=tmp_path / "runs")
    assert {key for key in done.runs[0].figures if key.startswith("group_accuracy.")} == {
        "group_accuracy.None",
        "group_accuracy.NA",
    }
    assert done.compare().index.tolist() == ["null"]
    assert done.groups["variant"].tolist() == ["null"] * 4
    assert done.groups["group"].tolist() == ["None", "NA"] * 2
    assert pd.isna(done.rounds["skipped"]).all()  # nothing was written there
