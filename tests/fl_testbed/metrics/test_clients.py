import math

import numpy as np
import pytest

from fl_testbed.metrics import client_accuracies, spread


def test_each_client_is_judged_on_the_mix_that_it_holds() -> None:
    # Cells 0 to 3 with accuracies 1/2, 1, 0 and (nothing tested).
    correct, cells = np.array([True, False, True, True, False]), np.array([0, 0, 1, 1, 2])
    holdings = np.array([[4, 0, 0, 0], [0, 1, 0, 0], [3, 1, 4, 4], [0, 0, 0, 5]])
    accuracies = client_accuracies(correct, cells, holdings)
    assert accuracies[:3] == pytest.approx([0.5, 1.0, 3 / 8 * 0.5 + 1 / 8])
    assert math.isnan(accuracies[3])


def test_a_client_with_test_examples_of_its_own_is_judged_on_these_alone() -> None:
    correct, cells = np.array([True, False, True, True]), np.array([0, 0, 1, 1])
    holdings, own = np.array([[4, 0], [4, 0]]), [np.array([1, 2, 3]), np.array([], dtype=int)]
    assert client_accuracies(correct, cells, holdings, own) == pytest.approx([2 / 3, 0.5])


def test_the_worst_tenth_is_rounded_up_and_never_empty() -> None:
    accuracies = np.linspace(1, 0, 11)  # the worst tenth of 11 clients are 2
    assert spread(accuracies).worst == pytest.approx(0.05)
    assert spread(np.append(np.linspace(0, 0.9, 10), [math.nan] * 10)).worst == 0.0
    assert spread(np.array([0.3, math.nan])) == pytest.approx((0.0, 0.3))
    assert all(math.isnan(x) for x in spread(np.array([math.nan])))


def test_variance_is_over_clients() -> None:
    assert spread(np.array([0.0, 1.0])).variance == 0.25
