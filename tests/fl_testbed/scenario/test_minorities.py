"""A minority of one's own: a look, or some of the examples."""

import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fl_testbed.data import Dataset, Examples, Groups
from fl_testbed.data.groups import OwnGroups
from fl_testbed.scenario.minorities import OwnMinoritySpec
from fl_testbed.scenario.users_code import OwnCodeError

LABELS = np.arange(4) % 2
TRAIN = Examples(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 1, 2, 2), LABELS)
DATASET = Dataset("squares", TRAIN, TRAIN.take(np.array([3, 0])), ("a", "b"))


def groups(folder: Path, parameters: str, body: str) -> Groups:
    (folder / "mine.py").write_text(f"def few({parameters}):\n    {body}\n")
    return OwnMinoritySpec(kind=f"{folder / 'mine.py'}:few").build(DATASET)


def test_a_look_is_the_minority_s_and_leaves_the_plain_one_alone(tmp_path):
    made = groups(tmp_path, "inputs", "inputs /= 2; return inputs.astype(float)")
    test = made.test_examples(DATASET.test, None)
    assert made.names == ("plain", "few")
    assert test.inputs.dtype == torch.float32
    assert np.array_equal(test.inputs[:2], DATASET.test.inputs)
    assert np.array_equal(test.inputs[2:], DATASET.test.inputs / 2)


def test_examples_that_are_marked_are_the_minority(tmp_path):
    made = cast(Any, groups(tmp_path, "examples", "return examples.inputs.max((1, 2, 3)) > 0.5"))
    assert isinstance(made, OwnGroups)
    assert (made.names, made.minority) == (("others", "few"), {1})
    assert (made.train.tolist(), made.test.tolist()) == ([0, 0, 1, 1], [1, 0])


def test_who_marks_examples_is_told_what_codes_stand_for(tmp_path):
    body = "return examples.labels == dataset.classes.index('b')"
    made = cast(Any, groups(tmp_path, "examples, dataset", body))
    assert (made.train.tolist(), made.test.tolist()) == ([0, 1, 0, 1], [1, 0])


@pytest.mark.parametrize(
    ("parameters", "body", "fault"),
    [
        ("inputs", "return 1", "must return inputs as floats in an array, returned int"),
        (
            "inputs",
            "return inputs[:1]",
            "must return inputs as floats of shape (2, 1, 2, 2), returned float32 of shape (1, ",
        ),
        (
            "inputs",
            "return inputs > 0.5",
            "must return inputs as floats of shape (2, 1, 2, 2), returned bool",
        ),
        ("inputs", "return inputs + 1", "must return inputs as bytes or from 0 to 1, returned 1 t"),
        ("inputs", "return inputs / 0 * 0", "must return inputs without NaN or infinity"),
        (
            "examples",
            "return examples.labels",
            "must return bools of shape (4,), returned int64 of shape (4,)",
        ),
        ("examples", "examples.inputs.sort()", "raised ValueError: sort array is read-only"),
        (
            "examples, dataset",
            "dataset.test.labels.sort()",
            "raised ValueError: sort array is read-only",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning")
def test_what_is_no_minority_is_told_with_the_users_line(tmp_path, parameters, body, fault):
    with pytest.raises(OwnCodeError) as error:
        groups(tmp_path, parameters, body)
    assert re.search(rf"mine.py:[12]: few {re.escape(fault)}", str(error.value))


@pytest.mark.parametrize("parameters", ["inputs, examples", "inputs, dataset", "dataset", ""])
def test_a_minority_is_either_a_look_or_some_examples(tmp_path, parameters):
    with pytest.raises(ValidationError, match="few needs either 'inputs', to restyle them"):
        groups(tmp_path, parameters, "return inputs")
