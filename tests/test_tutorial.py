"""The tutorial's files work, and its table says what its results do."""

import csv
import runpy
from pathlib import Path

import torch

from fl_testbed.scenario import load_scenarios

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial"
ROLES = ("honest_majority", "honest_minority", "poisoned")


def test_the_rule_keeps_who_is_near_the_median():
    rule = runpy.run_path(str(TUTORIAL / "my_defence.py"))["near_the_median"]
    result = rule(torch.tensor([[0.0], [1.0], [9.0]]), n_malicious=1)
    assert result.weights.tolist() == [0.5, 0.5, 0]
    assert result.update.tolist() == [0.5]


def test_the_page_shows_the_rule_as_it_is():
    source = (TUTORIAL / "my_defence.py").read_text(encoding="utf-8")
    assert source[source.index("def ") :] in (TUTORIAL / "README.md").read_text(encoding="utf-8")


def test_the_table_is_that_of_the_results_and_of_the_scenario():
    page = (TUTORIAL / "README.md").read_text(encoding="utf-8")
    with (TUTORIAL / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == list(
        dict.fromkeys(s.variant for s in load_scenarios(TUTORIAL / "scenario.yaml"))
    )
    assert "\n".join(line_of(row) for row in rows) in page


def line_of(row: dict[str, str]) -> str:
    """Return a row of the table."""
    shares = [
        f"{100 * float(row[f'final.{name}.mean']):.0f} ± "
        f"{100 * float(row[f'final.{name}.half_width']):.0f}"
        for name in ("worst_group_accuracy", "attack_success_rate")
    ]
    ratios = [row[f"suppression.{role}.weight_ratio.mean"] for role in ROLES]
    weights = [f"{float(ratio):.2f}" if ratio else "–" for ratio in ratios]
    name = row["variant"] + (" †" if row["oracle"] == "1" else "")
    return f"| {' | '.join([name, *shares, *weights])} |"
