"""What a machine with a GPU needs: torch, numpy, scipy, and ``clients`` and ``strategies``."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BLOCKED = ("flwr", "ray", "pydantic", "yaml", "pandas", "psutil", "jaxtyping", "fl_testbed")
BARE = """
import runpy, sys
sys.modules |= dict.fromkeys({blocked})
sys.argv, sys.path[:0] = [{script!r}, "--tiny"], [{folder!r}]
runpy.run_path({script!r}, run_name="__main__")
"""


def test_the_benchmark_for_gpus_runs_there_and_measures_every_figure():
    script = REPOSITORY / "experiments" / "benchmarks" / "on_gpu.py"
    code = BARE.format(blocked=BLOCKED, script=str(script), folder=str(script.parent))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum("<=" in line or ">=" in line for line in lines) == 8  # what is wanted of a GPU
    assert "nan" not in done.stdout
