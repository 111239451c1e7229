import subprocess
from pathlib import Path

import pytest

from fl_testbed.engine.environment import _commit, environment
from fl_testbed.engine.installation import versions
from fl_testbed.scenario import load_scenarios

QUICKSTART = Path(__file__).parents[3] / "configs" / "quickstart.yaml"


def test_the_commit_of_the_code_and_versions_are_noted() -> None:
    noted = environment(load_scenarios(QUICKSTART)[0], "")
    assert (noted["commit"], noted["packages"]) == (_commit(), versions())


def test_what_is_installed_has_no_commit_be_it_in_somebodys_repository(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *args, **named: pytest.fail("git was asked"))
    assert _commit(tmp_path) is None
