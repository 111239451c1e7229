"""What a run costs in memory, before it starts."""

from fl_testbed.data import Dataset
from fl_testbed.engine.assembly import build_model
from fl_testbed.scenario import Scenario

FLOAT32 = 4


def server_memory(scenario: Scenario, dataset: Dataset) -> tuple[int, int]:
    """Return the number of parameters d and the bytes of the (n, d) matrix of updates."""
    d = sum(p.numel() for p in build_model(scenario, dataset).parameters())
    return d, FLOAT32 * scenario.n_sampled * d
