import subprocess
from pathlib import Path

import pytest

from fl_testbed.engine.environment import _commit, environment
from fl_testbed.scenario import load_scenarios

QUICKSTART = Path(__file__).parents[3] / "configs" / "quickstart.yaml"


def test_the_commit_of_the_code_is_noted() -> None:
    assert environment(load_scenarios(QUICKSTART)[0], "")["commit"] == _commit()


def test_what_is_installed_has_no_commit_be_it_in_somebodys_repository(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *args, **named: pytest.fail("git was asked"))
    assert _commit(tmp_path) is None
