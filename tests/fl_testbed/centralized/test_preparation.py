"""What a run on pooled data starts from."""

import numpy as np

from fl_testbed.centralized.preparation import prepare
from fl_testbed.data import Dataset, Examples
from fl_testbed.scenario import CentralizedScenario


def test_a_minority_of_ones_own_is_told_among_all_examples_under_another_label(tmp_path):
    code = "def few(examples):\n    return examples.inputs[:, 0] < examples.inputs.mean() / 2\n"
    (tmp_path / "mine.py").write_text(code)
    scenario = CentralizedScenario.model_validate(
        {
            "kind": "centralized",
            "name": "small",
            "dataset": {"kind": "digits", "minority": {"kind": f"{tmp_path / 'mine.py'}:few"}},
            "model": {"kind": "logistic_regression"},
            "training": {"lr": 0.1, "batch_size": 5, "epochs": 1},
        }
    )
    part = Examples(np.arange(8, dtype=np.float32)[:, None], np.arange(8) % 2)
    material = prepare(scenario, Dataset("numbers", part, part, ("a", "b")))
    assert material.groups.held_groups(np.arange(4), np.zeros(4)).tolist() == [1, 1, 0, 0]
    assert [material.annotated_as(group, label=1) for group in (0, 1)] == [0, 1]
