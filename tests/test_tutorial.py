"""The tutorial's files work, and its results are those of its scenario."""

import csv
import runpy
from pathlib import Path

import torch
from pretended_device import ELSEWHERE, PretendedDevice

from fl_testbed.scenario import load_scenarios

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial"


def test_the_rule_keeps_who_is_near_the_median():
    rule = runpy.run_path(str(TUTORIAL / "my_defence.py"))["near_the_median"]
    prior = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64)
    with PretendedDevice():  # as on a GPU
        updates = torch.tensor([[0.0], [1.0], [9.0]]).to(ELSEWHERE)
        result = rule(updates, prior, n_malicious=1)
        assert result.weights.tolist() == [0.5, 0.5, 0]
        assert result.update.tolist() == [0.5]


def test_the_page_shows_the_rule_as_it_is():
    source = (TUTORIAL / "my_defence.py").read_text(encoding="utf-8")
    assert source[source.index("def ") :] in (TUTORIAL / "README.md").read_text(encoding="utf-8")


def test_the_results_are_those_of_the_scenario():
    with (TUTORIAL / "results.csv").open(encoding="utf-8") as file:
        variants = [row["variant"] for row in csv.DictReader(file)]
    scenarios = load_scenarios(TUTORIAL / "scenario.yaml")
    assert variants == list(dict.fromkeys(scenario.variant for scenario in scenarios))
