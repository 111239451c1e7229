import math

import numpy as np
import pandas as pd
import pytest

from fl_testbed.metrics import group_accuracy, minority_and_majority

# Group 0: 3 of 4 right. Group 1: 1 of 2 right.
CORRECT = np.array([True, True, False, True, True, False])
GROUPS = np.array([0, 0, 1, 0, 1, 0])


def test_each_group_is_counted_by_itself():
    result = group_accuracy(CORRECT, GROUPS, np.array([1, 1]))
    assert result.n_examples == (4, 2)
    assert result.accuracies == (0.75, 0.5)
    assert result.worst == 0.5
    assert result.test_accuracy == pytest.approx(4 / 6)
    assert group_accuracy(CORRECT[:3], GROUPS[:3], np.array([1, 1])).accuracies == (1, 0)


def test_accuracy_weighs_groups_as_training_does_and_not_as_the_test_set_does():
    # 9 to 1 in training: 0.9 × 0.75 + 0.1 × 0.5. By test examples it would be 4 / 6.
    result = group_accuracy(CORRECT, GROUPS, np.array([90, 10]))
    assert result.accuracy == pytest.approx(0.725)


def test_a_group_without_test_examples_is_missing_and_not_the_worst():
    # It trains half of all clients, yet has no part in the mean: 0.75 × 1/2 + 0.5 × 1/2.
    result = group_accuracy(CORRECT, GROUPS + 1, np.array([10, 5, 5]))
    assert result.n_examples == (0, 4, 2)
    assert math.isnan(result.accuracies[0])
    assert result.worst == 0.5
    assert result.accuracy == pytest.approx(0.625)


def test_a_group_that_nobody_trains_on_has_no_part_in_the_mean_but_may_be_the_worst():
    result = group_accuracy(CORRECT, GROUPS, np.array([10, 0]))
    assert result.accuracy == 0.75
    assert result.worst == 0.5


def test_without_honest_training_data_all_tested_groups_weigh_the_same():
    result = group_accuracy(CORRECT, GROUPS, np.array([0, 0, 0]))
    assert result.accuracy == pytest.approx(0.625)


def test_without_any_test_example_everything_is_missing():
    result = group_accuracy(np.zeros(0, bool), np.zeros(0, int), np.array([3, 1]))
    assert result.n_examples == (0, 0)
    assert math.isnan(result.worst)
    assert math.isnan(result.accuracy)
    assert math.isnan(result.test_accuracy)


def test_minorities_are_judged_together_on_their_test_examples_and_so_are_all_others():
    rows = [(1, 30, 0.5), (1, 10, 0.9), (1, 0, math.nan), (0, 1, 0.8), (0, 1, 1.0)]
    table = pd.DataFrame(rows, columns=["is_minority", "n_examples", "accuracy"])
    found = minority_and_majority(table)
    assert found == pytest.approx({"minority_accuracy": 0.6, "majority_accuracy": 0.9})
    untested = minority_and_majority(table[2:])
    assert math.isnan(untested["minority_accuracy"])
    assert untested["majority_accuracy"] == pytest.approx(0.9)
    assert all(math.isnan(value) for value in minority_and_majority(table[3:]).values())
