"""``fl-testbed show`` through the real command."""

import csv
from pathlib import Path

import numpy as np
import torch
from commands import SCENARIO, run, succeed, write_scenario
from matplotlib.image import imread

from fl_testbed.data.dataset import CategoryFeature, NumberFeature
from fl_testbed.data.specimens import Specimen, Strip
from fl_testbed.report.example_sheet import table_sheet


def test_the_sheet_shows_the_trigger_on_what_attackers_train_on(tmp_path: Path) -> None:
    write_scenario(tmp_path)
    said = succeed("show", "scenario.yaml", "--columns", "3", cwd=tmp_path)
    assert said.strip() == "examples: small-default.png"
    sheet = imread(tmp_path / "small-default.png")
    assert sheet.shape[0] > 600  # five strips: majority, minority, before, after, test
    assert np.ptp(sheet) > 0.5


def test_an_unknown_variant_is_refused(tmp_path: Path) -> None:
    write_scenario(tmp_path, SCENARIO)
    done = run("show", "scenario.yaml", "--variant", "no", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "scenario.yaml: --variant: needs one of default, got no\n"


def test_a_table_is_written_in_its_own_units(tmp_path: Path) -> None:
    features = {
        "age": NumberFeature(0, mean=40.0, scale=10.0, is_log=False),
        "gain": NumberFeature(1, mean=1.0, scale=2.0, is_log=True),
        "sex": CategoryFeature(2, ("Female", "Male")),
    }
    row = torch.tensor([2.5, 0.0, 0.0, 1.0])
    table_sheet([Strip("after", [Specimen(row, "rich", "poor")])], features, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open() as file:
        (read,) = csv.DictReader(file)
    assert read == {
        "what": "after",
        "label": "rich",
        "label before": "poor",
        "age": "65",
        "gain": "1.7183",  # log(1 + 1.7183) = 1
        "sex": "Male",
    }
