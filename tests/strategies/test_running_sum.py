"""Updates that are added up as they come."""

import pytest
import torch

from clients.device_memory import CountedTensors
from strategies.aggregation.traits import RowByRow
from strategies.running_sum import RunningSum

MEAN = RowByRow(scale=lambda norm: 1.0, suspicion=lambda norm: 0.0)


def total_of(*rows: tuple[int, float, float], rule: RowByRow = MEAN) -> torch.Tensor:
    """Return the mean of one-number rows, given as place, value and weight."""
    running = RunningSum(1, rule)
    for place, value, weight in rows:
        running.put(place, torch.tensor([value]), weight, value)
    return running.result().update


def test_rows_that_come_early_are_copied_as_the_next_takes_their_place():
    running, row = RunningSum(2, MEAN), torch.empty(2)
    running.put(1, row.fill_(3.0), 1.0, 1.0)
    running.put(0, row.fill_(1.0), 1.0, 1.0)
    assert running.result().update.tolist() == [2.0, 2.0]


def test_a_row_that_never_comes_holds_nobody_up():
    assert total_of((1, 5.0, 1.0)).tolist() == [5.0]


def test_rows_are_added_in_their_order_and_in_float64_though_one_never_comes():
    # In another order 1 would be lost beside 2^60, in float32 beside 2^30.
    size = {1: 2.0**60, 2: -(2.0**60), 3: 2.0**30, 4: 4.0, 5: -(2.0**30), 6: 0.0}
    total = total_of(*((place, size[place], 0.25) for place in (5, 4, 3, 1, 6, 2)))
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(4 / 6)


def test_rows_after_one_that_failed_are_not_held_back():
    running, row = RunningSum(1_000, MEAN), torch.ones(1_000)
    with CountedTensors() as count:
        running.skip(0)
        for place in range(1, 9):
            running.put(place, row, 1.0, 1.0)
    assert count.peak < row.nbytes  # nor copied


def test_all_count_equally_where_nobody_has_any_weight():
    rows = (0, 1.0, 0.0), (1, 5.0, 0.0)
    assert total_of(*rows).tolist() == [3.0]
    assert total_of(*rows, rule=MEAN._replace(scale=lambda norm: 0.5)).tolist() == [1.5]


def test_who_has_no_weight_does_not_count_beside_who_has():
    assert total_of((0, 1.0, 0.0), (1, 5.0, 3.0), (2, 9.0, 1.0)).tolist() == [6.0]
