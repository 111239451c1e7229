import os
from pathlib import Path

import pytest

# One process of tests per core: more threads than that only spin. Before torch is imported.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")


@pytest.fixture
def data_dir() -> Path:
    """The folder of real datasets that ``FL_TESTBED_DATA`` names; without one, skip the test."""
    folder = os.environ.get("FL_TESTBED_DATA")
    if not folder:
        pytest.skip("needs real datasets: set FL_TESTBED_DATA to the folder that holds them")
    return Path(folder)
