"""A scenario that is right, for tests that change it."""

import pytest

from fl_testbed.scenario import load_scenarios

GOOD = """\
name: small
rounds: 6
dataset: {kind: digits}
model: {kind: mlp, hidden: [4]}
clients: {honest_majority: 9, honest_minority: 3, poisoned: 4, examples_each: 10}
training: {lr: 0.1, batch_size: 5}
strategy: {aggregation: {kind: mean}}
"""


@pytest.fixture
def load(tmp_path):
    """Load the good scenario with more keys, and with some set as on the command line."""

    def load(more: str, *settings: str):
        path = tmp_path / "s.yaml"
        path.write_text(GOOD + more)
        return load_scenarios(path, settings)[0]

    return load
