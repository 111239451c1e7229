import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from fl_testbed.report.statistics import estimate, pareto_optimal


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12))
def test_the_interval_is_students(values: list[float]) -> None:
    sample = np.array(values) + 3 * np.arange(len(values))  # no two the same
    expected = ttest_1samp(sample, 0).confidence_interval(0.95)
    mean, half, n = estimate(sample)
    assert n == len(values)
    assert [mean - half, mean + half] == pytest.approx(list(expected), rel=1e-9, abs=1e-12)


def test_a_known_interval() -> None:
    # 1, 2, 3: mean 2, deviation 1, t(0.975; 2) = 4.302653, half = 4.302653 / sqrt(3)
    assert estimate(np.array([1.0, 2.0, 3.0])) == pytest.approx((2, 2.484138, 3), abs=1e-6)
    # t = 2 √3 of two degrees of freedom: 1 - t / √(t² + 2)
    assert estimate(np.array([1.0, 2.0, 3.0])).p_value == pytest.approx(1 - math.sqrt(12 / 14))
    assert estimate(np.zeros(3)).p_value == 1
    assert math.isnan(estimate(np.ones(1)).p_value)


def test_one_seed_has_no_interval_and_no_seed_no_mean() -> None:
    mean, half, n = estimate(np.array([0.5, math.nan]))
    assert (mean, n) == (0.5, 1)
    assert math.isnan(half)
    mean, _, n = estimate(np.array([math.nan]))
    assert n == 0
    assert math.isnan(mean)


def test_pareto_optimal_is_what_no_other_beats() -> None:
    costs = np.array(
        [
            [1.0, 4.0],  # optimal
            [2.0, 2.0],  # optimal
            [2.0, 3.0],  # as good as the one above in the first, worse in the second
            [3.0, 3.0],  # beaten in both
            [2.0, 2.0],  # its twin does not beat it
        ]
    )
    assert pareto_optimal(costs).tolist() == [True, True, False, False, True]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8))
def test_whatever_is_not_pareto_optimal_is_beaten_by_something_that_is(pairs) -> None:
    costs = np.array(pairs, dtype=float)
    marks = pareto_optimal(costs)
    assert marks.any()
    for row in costs[~marks]:
        assert ((costs[marks] <= row).all(axis=1) & (costs[marks] < row).any(axis=1)).any()
