"""A user's own code runs wherever ours does, with no packaging step."""

import re
from pathlib import Path
from unittest.mock import MagicMock

import pandas as pd
import pytest
from commands import assert_same_results, run, run_folders, succeed
from own_code import write_own_scenario

from fl_testbed.engine.launch import launch
from fl_testbed.engine.options import Options
from fl_testbed.scenario import ScenarioError, load_scenarios
from fl_testbed.scenario.users_code import OwnCodeError


def test_the_run_folder_gives_the_same_run(tmp_path: Path) -> None:
    write_own_scenario(tmp_path)
    succeed("run", "scenario.yaml", "--out", "out", cwd=tmp_path)
    folder = run_folders(tmp_path / "out")["small/default/seed-0"]
    succeed("run", folder / "scenario.yaml", "--out", "again", cwd=tmp_path)
    assert_same_results(tmp_path / "out", tmp_path / "again")
    assert "relabelled" in (folder / "summary.json").read_text()  # its success is measured
    weights = pd.read_csv(folder / "clients.csv").groupby("round")["weight"]
    assert (weights.agg(lambda column: (column == 0).sum()) == 2).all()  # the rule ran


def test_the_run_folder_has_the_code_as_it_ran(tmp_path: Path) -> None:
    scenario = write_own_scenario(tmp_path)
    code = tmp_path / "sub" / "mine.py"
    ran = f"# -*- coding: latin-1 -*-\n# é\n{code.read_text()}".replace("\n", "\r\n")
    code.write_bytes(ran.encode("latin-1"))
    scenarios = load_scenarios(scenario, ["rounds=1"])
    code.write_text("an edit while the run waits for its turn")
    assert launch(scenarios, Options(tmp_path / "out", None, ""), MagicMock()) == []
    (folder,) = run_folders(tmp_path / "out").values()
    assert (folder / "mine.py").read_bytes() == ran.encode("latin-1")
    (again,) = load_scenarios(folder / "scenario.yaml")  # the hash in it is the copy's
    assert again.to_yaml() == scenarios[0].to_yaml()


FAULTS = {
    "norms = updates": ("norms = update", "without_largest raised NameError: name 'update' is not"),
    "rng.integers(0, 3": ("rng.integers(0, -3", "bright_spots raised ValueError: high <= 0"),
    "self.last(": ("self.lost(", "Net raised AttributeError: 'Net' object has no attribute 'lost'"),
    "full_like(shard.labels": (
        "full_like(shard.l",
        "relabelled raised AttributeError: 'Shard' obj",
    ),
    "seen.mean(dim=0)": ("seen.mean(dim=7)", "against raised IndexError: Dimension out of range"),
}


@pytest.mark.parametrize("line", FAULTS)
def test_a_fault_in_a_users_code_is_one_line_with_its_place(line: str, tmp_path: Path) -> None:
    scenario = write_own_scenario(tmp_path)
    code = tmp_path / "sub" / "mine.py"
    good, (wrong, text) = code.read_text(), FAULTS[line]
    code.write_text(good.replace(line, wrong))
    scenarios, options = load_scenarios(scenario), Options(tmp_path / "out", None, "")
    try:
        told = launch(scenarios, options, MagicMock())
    except (ScenarioError, OwnCodeError) as error:  # what shows before the first run
        told = [str(error)]
    number = 1 + good[: good.index(line)].count("\n")
    assert f"{code}:{number}: {text}" in told[0]


def test_the_command_tells_of_a_fault_in_a_users_rule_and_stops(tmp_path: Path) -> None:
    write_own_scenario(tmp_path)
    code = tmp_path / "sub" / "mine.py"
    code.write_text(code.read_text().replace("norms = updates", "norms = update"))
    done = run("run", "scenario.yaml", "--out", "out", "--set", "rounds=1", cwd=tmp_path)
    assert done.returncode == 1
    assert "seed-0: the run failed after round 0: " in done.stderr
    assert "mine.py:19: without_largest raised NameError" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_command_tells_of_a_users_model_that_cannot_be_trained(tmp_path: Path) -> None:
    write_own_scenario(tmp_path)
    code = tmp_path / "sub" / "mine.py"
    good = code.read_text()
    broken = good.replace("return self.last", "assert not self.training; return self.last")
    code.write_text(broken)
    done = run("run", "scenario.yaml", "--out", "out", "--set", "rounds=2", cwd=tmp_path)
    assert done.returncode == 1  # nobody trained anything
    line = 1 + broken[: broken.index("assert")].count("\n")
    fault = f"client 0 failed: AssertionError: (mine.py:{line})"
    told = f"default seed 0, round 1: 12 of 12 replies were rejected or failed, {fault}"
    assert done.stdout.splitlines().count(told) == 1
    assert f"12 of 12 failed: AssertionError: (mine.py:{line})" in done.stderr


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (
            "images = images + torch.rand(1)\n        return ",
            "draws random numbers in tests too",
        ),
        (
            "return 1, ",
            "must turn shape (2, 1, 8, 8) into (2, 3), one logit per class, returned tuple",
        ),
        (  # it failed in round 1, with nothing but numpy's "unsupported ScalarType"
            "self.bfloat16(); images = images.bfloat16()\n        return ",
            "has hidden.weight in bfloat16: keep it in float32, and cast in forward",
        ),
    ],
)
def test_a_users_model_that_cannot_be_tested_is_refused(
    returned: str, told: str, tmp_path: Path
) -> None:
    scenario = write_own_scenario(tmp_path)
    code = tmp_path / "sub" / "mine.py"
    code.write_text(code.read_text().replace("return self.last(", f"{returned}self.last("))
    with pytest.raises((ScenarioError, OwnCodeError), match=re.escape(f"Net {told}")):
        launch(load_scenarios(scenario), Options(tmp_path / "out", None, ""), MagicMock())
