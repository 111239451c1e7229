"""A trained model in a scenario: found where its path was written, and known by its content."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fl_testbed.scenario import CentralizedScenario, Scenario, ScenarioError, load_scenarios
from fl_testbed.scenario.initial_model import InitialModelError

SCENARIO = """\
name: small
rounds: 6
dataset: {kind: digits}
model: {kind: mlp, hidden: [4]}
clients: {honest_majority: 8, honest_minority: 0, poisoned: 0, examples_each: 10}
training: {lr: 0.1, batch_size: 5}
strategy: {aggregation: {kind: mean}}
"""


def model_file(path: Path, value: float = 0.0) -> Path:
    path.parent.mkdir(exist_ok=True)
    save_file({"weight": torch.full((2,), value)}, path)
    return path


def load(folder: Path, init: str, *settings: str) -> Scenario:
    (folder / "scenario.yaml").write_text(f"{SCENARIO}init: {init}\n")
    (scenario,) = load_scenarios(folder / "scenario.yaml", settings)
    assert isinstance(scenario, Scenario)
    return scenario


def source(scenario: Scenario | CentralizedScenario) -> Path:
    assert scenario.init is not None
    return scenario.init.source.resolve()


def test_a_path_is_relative_to_the_file_that_names_it(tmp_path):
    base, top = (model_file(tmp_path / name / "model.safetensors") for name in ("base", "top"))
    load(base.parent, "model.safetensors")
    (top.parent / "variants.yaml").write_text(
        "extends: ../base/scenario.yaml\n"
        "variants: {base: {}, top: {init: model.safetensors}, fresh: {init: null}}\n"
    )
    one, other, fresh = load_scenarios(top.parent / "variants.yaml")
    assert (source(one), source(other), fresh.init) == (base, top, None)
    (top.parent / "sweep.yaml").write_text(
        "extends: ../base/scenario.yaml\nsweep: {init: {top: {path: model.safetensors}}}\n"
    )
    (swept,) = load_scenarios(top.parent / "sweep.yaml")
    assert source(swept) == top


def test_on_the_command_line_a_path_is_relative_to_where_one_is(tmp_path, monkeypatch):
    here = model_file(tmp_path / "model.safetensors")
    model_file(tmp_path / "base" / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    assert source(load(Path("base"), "model.safetensors", "init=model.safetensors")) == here


def test_a_run_is_known_by_what_is_in_the_file_and_not_by_where_it_is(tmp_path):
    model_file(tmp_path / "one.safetensors")
    model_file(tmp_path / "same.safetensors")
    model_file(tmp_path / "other.safetensors", 1.0)
    names = ("one", "same", "other")
    one, same, other = (load(tmp_path, f"{name}.safetensors") for name in names)
    assert one.to_yaml() == same.to_yaml() != other.to_yaml()
    assert one.init is not None
    insists = json.dumps({"path": "one.safetensors", "sha256": one.init.sha256})
    assert load(tmp_path, insists).to_yaml() == one.to_yaml()
    with pytest.raises(ScenarioError, match=r"other.safetensors has changed since the scenario"):
        load(tmp_path, insists.replace("one", "other"))


def test_it_travels_with_the_scenario(tmp_path):
    path = model_file(tmp_path / "model.safetensors")
    content, scenario = path.read_bytes(), load(tmp_path, "model.safetensors")
    path.unlink()
    assert pickle.loads(pickle.dumps(scenario)).init.content == content


@pytest.mark.parametrize(
    ("init", "fault"),
    [
        (
            "lost.safetensors",
            "FOLDER/lost.safetensors cannot be read: No such file or directory; "
            "FOLDER has model.safetensors",
        ),
        (".", "FOLDER cannot be read: Is a directory; FOLDER has model.safetensors"),
        ("scenario.yaml", "FOLDER/scenario.yaml is not a safetensors file: "),
        ("torn.safetensors", "FOLDER/torn.safetensors is not a safetensors file: "),
        ("empty.pt", "FOLDER/empty.pt is not a safetensors file: "),
        ("7", "needs the path of a safetensors file, got 7"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(init, fault, tmp_path):
    content = model_file(tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "empty.pt").touch()
    if init == "torn.safetensors":
        (tmp_path / init).write_bytes(content[:-1])
    with pytest.raises(ScenarioError) as error:
        load(tmp_path, init)
    (line,) = str(error.value).splitlines()
    assert line.replace(str(tmp_path), "FOLDER").startswith(
        f"FOLDER/scenario.yaml:8: init: {fault}"
    )


def test_a_mapping_needs_its_path(tmp_path):
    with pytest.raises(ScenarioError, match=r"scenario.yaml:8: init.path: is missing"):
        load(tmp_path, "{sha256: abc}")


def test_what_does_not_fit_says_the_same_in_another_process():
    fault = InitialModelError(["lacks 0.bias", "has 2 numbers in 0.weight that are not finite"])
    again = pickle.loads(pickle.dumps(fault))
    assert again.texts == fault.texts
    assert str(again) == str(fault)
