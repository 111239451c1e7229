"""Updates that are added up as they come."""

import torch

from strategies.running_sum import RowByRow, RunningSum

MEAN = RowByRow(scale=lambda norm: 1.0, suspicion=lambda norm: 0.0)


def total_of(*rows: tuple[int, float, float]) -> torch.Tensor:
    """Return the mean of one-number rows, given as place, value and weight."""
    running = RunningSum(1, MEAN)
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


def test_all_count_equally_where_nobody_has_any_weight():
    assert total_of((0, 1.0, 0.0), (1, 5.0, 0.0)).tolist() == [3.0]


def test_who_has_no_weight_does_not_count_beside_who_has():
    assert total_of((0, 1.0, 0.0), (1, 5.0, 3.0), (2, 9.0, 1.0)).tolist() == [6.0]
