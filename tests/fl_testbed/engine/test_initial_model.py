"""Runs that start from the model of another."""

from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from unittest.mock import MagicMock, patch

import pandas as pd
import pytest
import torch
from commands import (
    SAME_BYTES,
    SCENARIO,
    run,
    run_folders,
    succeed,
    write_scenario,
)
from safetensors.torch import load_file, save_file

from fl_testbed.centralized import experiment
from fl_testbed.centralized.preparation import model_of
from fl_testbed.engine.datasets import DatasetCache
from fl_testbed.engine.launch import launch
from fl_testbed.engine.options import Options
from fl_testbed.engine.run_folder import Record, RunFolder
from fl_testbed.scenario import CentralizedScenario, ScenarioError, load_scenarios

MORE = """
extends: base/scenario.yaml
name: more
init: base/out/small/default/seed-0/model.safetensors
rounds: 3
variants:
  plain: {}
  jtt: {strategy.reweighting: {kind: jtt, n_flagged: 4, factor: 5, warm_up_rounds: 2}}
  surrogate: {poison: {kind: subpopulation, fraction: 0.5, surrogate_epochs: 1}}
"""
FILES = (*SAME_BYTES, "scenario.yaml", "init.safetensors")
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def continued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("continued")
    (folder / "base").mkdir()
    write_scenario(folder / "base", SCENARIO.replace("rounds: 4", "rounds: 2"))
    succeed("run", "scenario.yaml", "--out", "out", cwd=folder / "base")
    write_scenario(folder, MORE)
    succeed("run", "scenario.yaml", "--out", "out", cwd=folder)
    return folder


def figures(folder: Path) -> pd.DataFrame:
    """What each evaluation found, one row a round."""
    return pd.read_csv(folder / "rounds.csv").iloc[:, 1:7]


def test_a_run_begins_where_the_other_ended(continued: Path) -> None:
    end = figures(continued / "base/out/small/default/seed-0").iloc[-1]
    begin = figures(continued / "out/more/plain/seed-0").iloc[0]
    pd.testing.assert_series_equal(begin, end, check_names=False, check_exact=True)


def test_a_restart_goes_back_to_it(continued: Path) -> None:
    rounds = figures(continued / "out/more/jtt/seed-0")
    restarted = rounds.iloc[2]  # in the last round of the warm-up
    pd.testing.assert_series_equal(restarted, rounds.iloc[0], check_names=False, check_exact=True)
    assert not rounds.iloc[1].equals(rounds.iloc[0])


def test_the_run_folder_gives_the_same_run(continued: Path, tmp_path: Path) -> None:
    folder = run_folders(continued / "out")["more/surrogate/seed-0"]
    succeed("run", folder / "scenario.yaml", "--out", "again", cwd=tmp_path)
    again = run_folders(tmp_path / "again")["more/surrogate/seed-0"]
    for name in FILES:
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name


def test_a_resumed_run_is_the_same_and_refuses_another_file(
    continued: Path, tmp_path: Path
) -> None:
    source = continued / "base/out/small/default/seed-0/model.safetensors"
    model = tmp_path / "model.safetensors"
    model.write_bytes(source.read_bytes())
    jtt = "{kind: jtt, n_flagged: 4, factor: 5, warm_up_rounds: 2}"
    settings = [f"init={model}", f"variants={{jtt: {{strategy.reweighting: {jtt}}}}}"]
    options = Options(tmp_path / "out", None, "", resume=True)
    record = RunFolder.record

    def killed(self: RunFolder, content: Record, **how: bool) -> None:
        if content.round_ == 2:
            raise KeyboardInterrupt
        record(self, content, **how)

    scenarios = load_scenarios(continued / "scenario.yaml", settings)
    with patch.object(RunFolder, "record", killed), pytest.raises(KeyboardInterrupt):
        launch(scenarios, options, MagicMock())  # pyright: ignore[reportArgumentType]

    other = {name: tensor + 1 for name, tensor in load_file(source).items()}
    save_file(other, model)
    changed = load_scenarios(continued / "scenario.yaml", settings)
    with pytest.raises(ScenarioError, match="holds a run of another scenario"):
        launch(changed, options, MagicMock())  # pyright: ignore[reportArgumentType]
    copytree(tmp_path / "out", tmp_path / "redone")
    for out, gives_way in (("redone", True), ("new", False)):
        progress = MagicMock()
        launch(changed, Options(tmp_path / out, None, "", resume=True, redo=True), progress)
        told = [call.args[0] for call in progress.note.call_args_list]
        assert ("earlier runs replaced, as something has changed: 1" in told) is gives_way
    redone, new = (run_folders(tmp_path / out)["more/jtt/seed-0"] for out in ("redone", "new"))
    assert (redone / "clients.csv").read_bytes() == (new / "clients.csv").read_bytes()

    model.write_bytes(source.read_bytes())
    assert not launch(scenarios, options, MagicMock())  # pyright: ignore[reportArgumentType]
    whole = run_folders(continued / "out")["more/jtt/seed-0"]
    resumed = run_folders(tmp_path / "out")["more/jtt/seed-0"]
    for name in FILES:
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], None]:
    def apply(model: Tensors) -> None:
        model[name] = change(model[name]).contiguous()

    return apply


def with_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor[0] = torch.nan
    tensor[1] = -torch.inf
    return tensor


def renamed(model: Tensors) -> None:
    model["3.bias"] = model.pop("2.bias")


MISFITS: dict[str, tuple[Callable[[Tensors], None], list[str]]] = {
    "names": (
        renamed,
        [
            "lacks 2.bias: is it the file of another model?",
            "has unknown 3.bias: is it the file of another model?",
        ],
    ),
    "shape": (
        changed("2.weight", lambda tensor: tensor[:, :-1]),
        ["has 2.weight as float32 [16, 63], the model needs float32 [16, 64]"],
    ),
    "type": (
        changed("4.bias", torch.Tensor.half),
        ["has 4.bias as float16 [10], the model needs float32 [10]"],
    ),
    "numbers": (
        changed("4.bias", with_nan),
        ["has 2 numbers in 4.bias that are not finite"],
    ),
}


@pytest.mark.parametrize("what", MISFITS)
def test_what_does_not_fit_the_model_is_a_line_for_each_fault(
    what: str, continued: Path, tmp_path: Path
) -> None:
    spoil, texts = MISFITS[what]
    model = load_file(continued / "out/more/plain/seed-0/model.safetensors")
    spoil(model)
    path = tmp_path / "model.safetensors"
    save_file(model, path)
    scenarios = load_scenarios(continued / "scenario.yaml", [f"init={path}"])
    with pytest.raises(ScenarioError) as error:
        launch(scenarios, Options(tmp_path / "out", None, ""), MagicMock())
    assert str(error.value).splitlines() == [f"--set: init: {path} {text}" for text in texts]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["run", "validate"])
def test_the_command_refuses_the_model_of_another_architecture(
    command: str, continued: Path, tmp_path: Path
) -> None:
    wider = ("--set", "model.hidden=[8, 4]")
    done = run(command, continued / "scenario.yaml", *wider, cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 5  # names, and four tensors whose names both models have
    assert all(": init: " in line for line in lines)
    assert "model.safetensors lacks 6.bias, 6.weight: is it the file of another model?" in lines[0]
    assert not list(tmp_path.iterdir())


def pooled(folder: Path, model: str) -> CentralizedScenario:
    (folder / "scenario.yaml").write_text(
        "kind: centralized\nname: pooled\ndataset: {kind: digits}\nn_examples: 50\n"
        f"model: {model}\ntraining: {{lr: 0.1, batch_size: 16, epochs: 1}}\n"
        "stages: [{kind: jtt, epochs: 1}]\ninit: init.safetensors\n"
    )
    (scenario,) = load_scenarios(folder / "scenario.yaml")
    assert isinstance(scenario, CentralizedScenario)
    return scenario


def test_on_pooled_data_every_training_starts_from_it(continued: Path, tmp_path: Path) -> None:
    path = continued / "out/more/plain/seed-0/init.safetensors"
    (tmp_path / "init.safetensors").write_bytes(path.read_bytes())
    scenario, datasets = pooled(tmp_path, "{kind: mlp, hidden: [16]}"), DatasetCache(None)
    experiment.check([scenario], datasets)
    for training in (0, 1):
        model = model_of(scenario, datasets.get(scenario), training).state_dict()
        torch.testing.assert_close(model, load_file(path), rtol=0, atol=0, check_stride=False)
    with pytest.raises(ScenarioError, match=r"yaml:8: init: .*init.safetensors has 2.weight as"):
        experiment.check([pooled(tmp_path, "{kind: mlp, hidden: [8]}")], datasets)
    assert not launch([scenario], Options(tmp_path / "out", None, ""), MagicMock(), experiment)
    folder = tmp_path / "out/pooled/default/seed-0"
    assert (folder / "init.safetensors").read_bytes() == path.read_bytes()
