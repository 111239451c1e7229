"""The examples of docs/extending.md do what the page says, as it is written."""

import re
import runpy
from pathlib import Path

import pandas as pd
import pytest
import torch
from pretended_device import ELSEWHERE, PretendedDevice

from fl_testbed import api
from fl_testbed.report.own_figures import with_own

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
BLOCK = re.compile(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", re.DOTALL)
FILES: dict[str, str] = dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", FILES)
def test_every_example_is_short(name):
    assert len(FILES[name].splitlines()) <= 30


def test_all_examples_run_together_and_in_a_notebook(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    api.run("scenario.yaml", out="runs")  # as one who reads the page from the top has done
    runpy.run_path(str(tmp_path / "notebook.py"))
    results = api.load_results(tmp_path / "more")
    ours = results.clients[results.clients["variant"] == "own_rule"]
    assert (ours.groupby("round").size() == 9).all()
    assert (ours[ours["weight"] == 0].groupby("round").size() == 2).all()
    assert results.compare().loc["own_rule", "final.attack_success_rate.mean"] >= 0
    (figure,) = {
        run.figures["own.spread"]
        for run in with_own(results.runs, ["my_figure.py:spread"])
        if run.variant == "own_rule"
    }
    assert 0 <= figure <= 100
    flower = results.rounds[results.rounds["variant"] == "flower"]
    assert (flower["weight_residual"][1:] < 1e-4).all()


def test_a_backdoor_lives_until_it_wins_for_the_last_time(tmp_path):
    (tmp_path / "my_figure.py").write_text(FILES["my_figure.py"])
    lifespan = runpy.run_path(str(tmp_path / "my_figure.py"))["lifespan"]
    success = {31: 0.9, 32: 0.4, 33: 0.6, 34: None, 35: 0.1}
    rounds = pd.DataFrame({"round": success.keys(), "attack_success_rate": success.values()})
    assert [lifespan(rounds, last) for last in (30, 32, 34)] == [3, 1, 0]
    assert lifespan(rounds.assign(attack_success_rate=0.2)) == 0


def test_the_rules_work_where_the_updates_are(tmp_path):
    (tmp_path / "my_rule.py").write_text(FILES["my_rule.py"])
    rules = runpy.run_path(str(tmp_path / "my_rule.py"))
    prior = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64)
    with PretendedDevice():  # as on a GPU
        updates = torch.tensor([[1.0], [-2.0], [4.0]]).to(ELSEWHERE)
        assert rules["without_longest"](updates, prior, 1).weights.tolist() == [0.5, 0.5, 0]
        assert rules["unit_length"](updates).updates.tolist() == [[2], [-2], [2]]
        (tmp_path / "my_memory.py").write_text(FILES["my_memory.py"])
        by_record = runpy.run_path(str(tmp_path / "my_memory.py"))["by_record"]
        clients = torch.tensor([3, 5, 8])
        first = by_record(updates, prior, clients, {}, keep=0.5)
        assert first.weights.tolist() == pytest.approx([1 / 3, 0, 2 / 3])
        others = clients[[1, 0, 2]]
        second = by_record(updates, prior, others, first.memory, keep=0.5)
        assert second.memory["record.values"].tolist() == [0, 0, 1]


def test_a_wrong_scenario_and_a_missing_folder_are_told(tmp_path):
    with pytest.raises(api.ScenarioError, match=r"none.yaml: no such file"):
        api.run(tmp_path / "none.yaml")
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder"):
        api.load_results("nowhere")
    with pytest.raises(FileNotFoundError, match=r"no run in"):
        api.load_results(tmp_path)


def test_datasets_are_looked_for_where_the_command_looks_for_them(tmp_path, monkeypatch):
    monkeypatch.setenv("FL_TESTBED_DATA", str(tmp_path / "here"))
    scenario = PAGE.parents[1] / "configs" / "inverted_fashion_mnist.yaml"
    with pytest.raises(api.ScenarioError, match=r"looked for in .*here"):
        api.run(scenario, engine="inline", out=tmp_path)


def test_tables_put_runs_under_each_other(tmp_path):
    for seed in (0, 1):
        folder = tmp_path / "sweep" / "mean" / f"seed-{seed}"
        folder.mkdir(parents=True)
        for name in ("scenario.yaml", "events.log"):
            (folder / name).touch()
        pd.DataFrame({"round": [0, 1]}).to_csv(folder / "rounds.csv", index=False)
    results = api.load_results(tmp_path)
    assert results.rounds["seed"].tolist() == [0, 0, 1, 1]
    with pytest.raises(FileNotFoundError, match=r"none of 2 runs has a attacks.csv"):
        results.table("attacks")
