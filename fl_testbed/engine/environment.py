"""What a reader needs besides a run's scenario to judge or repeat it: ``environment.json``."""

import os
import platform
import shutil
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from fl_testbed.data import Dataset
from fl_testbed.engine.installation import versions
from fl_testbed.engine.placement import gpus
from fl_testbed.scenario import AnyScenario

ENVIRONMENT = "environment.json"


def environment(scenario: AnyScenario, command: str) -> dict[str, Any]:
    """Return the contents of a run's ``environment.json``, except for its data."""
    return {
        "command": command,
        "engine": scenario.engine.model_dump(mode="json"),
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": versions(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": gpus(),
        "decisions": [],
    }


def _processor() -> str:
    """Return the CPU's model: on another model, the last bits of results may differ."""
    with suppress(OSError):  # only Linux has this file; there platform says no more than x86_64
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def _commit(checkout: Path = Path(__file__).parents[2]) -> str | None:
    """Return the commit of the code when this process first asked, which is the code that runs."""
    git = shutil.which("git")
    if git is None or not (checkout / ".git").exists():  # installed, perhaps in another repository
        return None
    result = subprocess.run(
        [git, "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or None


def data_of(scenario: AnyScenario, dataset: Dataset) -> dict[str, Any]:
    """Return what a run's ``environment.json`` says of its data and of the dataset it asked for."""
    spec = scenario.dataset
    asked = spec.model_dump(mode="json", exclude={"minority"}, exclude_none=True)
    return {
        "fingerprint": dataset.fingerprint,
        "train": len(dataset.train),
        "test": len(dataset.test),
        "of": asked | ({"seed": scenario.seed} if spec.split_by_seed else {}),
    }
