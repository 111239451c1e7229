import math

import numpy as np

from fl_testbed.metrics import attack_success

LABELS = np.array([3, 3, 3, 4, 4])


def test_a_trigger_is_credited_with_what_was_right_before_it():
    # Three are called the target, one of them was called something else anyway.
    unstamped = np.array([3, 0, 3, 7, 4])
    found = attack_success(np.array([0, 7, 3, 0, 0]), LABELS, 0, unstamped)
    assert found.n_examples == 5
    assert found.rate == 3 / 5
    assert found.flip_rate == 2 / 3
    assert found.accuracy == 1 / 5


def test_without_a_trigger_nothing_flips():
    found = attack_success(LABELS, LABELS, 0)
    assert (found.rate, found.accuracy) == (0.0, 1.0)
    assert math.isnan(found.flip_rate)


def test_no_examples_are_no_success():
    found = attack_success(LABELS[:0], LABELS[:0], 0, LABELS[:0])
    assert found.n_examples == 0
    assert all(math.isnan(figure) for figure in found[1:])


def test_a_trigger_on_what_was_never_right_flips_nothing():
    found = attack_success(np.zeros(5), LABELS, 0, np.zeros(5))
    assert found.rate == 1
    assert math.isnan(found.flip_rate)
