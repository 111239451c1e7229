"""What a machine with a GPU needs: torch, numpy, and ``clients`` and ``strategies``."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from clients.device_memory import HostMemory

REPOSITORY = Path(__file__).parents[2]
BENCHMARKS = REPOSITORY / "experiments" / "benchmarks"
BLOCKED = (
    *("flwr", "ray", "pydantic", "yaml", "pandas", "psutil", "jaxtyping", "scipy", "sklearn"),
    "fl_testbed",
    "torch._dynamo",  # it is there, but takes as long to import as torch
)
BARE = """
import runpy, sys
sys.modules |= dict.fromkeys({blocked})
sys.argv, sys.path[:0] = [{script!r}, "--tiny"], [{folder!r}]
runpy.run_path({script!r}, run_name="__main__")
"""


def test_the_benchmark_for_gpus_runs_there_and_measures_every_figure():
    script = BENCHMARKS / "on_gpu.py"
    code = BARE.format(blocked=BLOCKED, script=str(script), folder=str(script.parent))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum("<=" in line or ">=" in line for line in lines) == 9  # what is wanted of a GPU
    assert "nan" not in done.stdout
    assert "failed" not in done.stdout


def test_a_figure_that_fails_says_why_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    on_gpu = importlib.import_module("on_gpu")
    told: list[tuple[str, ...]] = []
    taken = on_gpu.Measurements(HostMemory(), lambda *row: told.append(row))

    def short_of_memory() -> float:
        raise RuntimeError("CUDA out of memory. Tried to allocate 12 GiB.\nMore of it")

    taken.of("one", short_of_memory)
    taken.of("two", lambda: 1 / taken.values["one"])
    taken.of("three", lambda: 2.0)
    assert told == [
        ("one", "failed: RuntimeError CUDA out of memory. Tried to allocate 12 GiB.", ""),
        ("two", "failed: KeyError 'one'", ""),
        ("three", "2", ""),
    ]
