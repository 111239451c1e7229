import subprocess
from pathlib import Path

import pytest

from fl_testbed.engine.environment import _commit


def test_what_is_installed_has_no_commit_be_it_in_somebodys_repository(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *args, **named: pytest.fail("git was asked"))
    assert _commit(tmp_path) is None
