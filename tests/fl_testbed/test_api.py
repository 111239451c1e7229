"""Running from a notebook."""

from pathlib import Path

import pytest
from commands import SCENARIO

from fl_testbed import api


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for name in ("small", "other"):
        text = SCENARIO.replace("rounds: 4", "rounds: 1").replace("name: small", f"name: {name}")
        paths.append(tmp_path / f"{name}.yaml")
        paths[-1].write_text(f"{text}sweep: {{seed: [0, 1]}}\n")
    return paths


def test_of_several_files_only_those_runs_that_are_wanted(files, tmp_path):
    out = tmp_path / "runs"
    done = api.run(files, out=out, only=lambda run: run.seed == 1)
    assert [(run.name, run.seed) for run in done.runs] == [("small", 1), ("other", 1)]
    assert not list(out.rglob("seed-0"))
    assert api.run(files, out=out, only=lambda run: False).runs == []
