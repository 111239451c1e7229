import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# One process of tests per core: more threads than that only spin. Before torch is imported.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

settings.register_profile("any_machine", deadline=None)  # that one is busy is no fault
settings.load_profile("any_machine")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import without looking for garbage, nor ever among what was imported, as commands do."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def frozen() -> Iterator[None]:
    """Keep what is imported frozen, whatever the tests of a module have done."""
    yield
    if not gc.get_freeze_count():
        gc.freeze()


@pytest.fixture
def data_dir() -> Path:
    """The folder of real datasets that ``FL_TESTBED_DATA`` names; without one, skip the test."""
    folder = os.environ.get("FL_TESTBED_DATA")
    if not folder:
        pytest.skip("needs real datasets: set FL_TESTBED_DATA to the folder that holds them")
    return Path(folder)
