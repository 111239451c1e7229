import os
from pathlib import Path

import pytest


@pytest.fixture
def data_dir() -> Path:
    """The folder of real datasets that ``FL_TESTBED_DATA`` names; without one, skip the test."""
    folder = os.environ.get("FL_TESTBED_DATA")
    if not folder:
        pytest.skip("needs real datasets: set FL_TESTBED_DATA to the folder that holds them")
    return Path(folder)
