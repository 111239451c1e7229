import pytest
import torch

from strategies.aggregation import robust_learning_rate

UPDATES = torch.tensor([[1.0, 4.0], [1.0, 4.0], [1.0, -1.0], [-5.0, -1.0]])


def test_goes_backwards_where_too_few_agree():
    # Signs sum to 2 and 0; the means are -0.5 and 1.5.
    result = robust_learning_rate(UPDATES, threshold=2)
    assert result.update.tolist() == [-0.5, -1.5]
    assert robust_learning_rate(UPDATES, threshold=3).update.tolist() == [0.5, -1.5]


def test_a_threshold_of_zero_is_the_mean():
    assert robust_learning_rate(UPDATES, threshold=0).update.tolist() == [-0.5, 1.5]


def test_suspicion_is_the_share_of_coordinates_opposed_to_the_step():
    assert robust_learning_rate(UPDATES, threshold=2).suspicion.tolist() == [1, 1, 0.5, 0]


def test_agreement_on_going_down_counts_as_well():
    assert robust_learning_rate(-UPDATES.abs(), threshold=4).update.tolist() == [-2.0, -2.5]


def test_the_prior_weighs_the_mean():
    result = robust_learning_rate(UPDATES, 0, prior=torch.tensor([0.5, 0.0, 0.0, 0.5]))
    assert result.update.tolist() == [-2.0, 1.5]
    assert result.weights.tolist() == [0.5, 0, 0, 0.5]


@pytest.mark.parametrize("threshold", [0, 2, 3])
def test_a_part_is_flipped_where_the_step_is(threshold):
    result = robust_learning_rate(UPDATES, threshold)
    flipped = torch.where(result.update == UPDATES.mean(dim=0), 1.0, -1.0)
    expected = (UPDATES / 4 * flipped) @ result.update
    torch.testing.assert_close(result.pulls, expected.double())


def test_a_value_of_zero_is_neither_for_nor_against():
    result = robust_learning_rate(torch.tensor([[1.0], [0.0], [1.0]]), threshold=2)
    assert result.update.item() > 0
    assert result.suspicion.tolist() == [0, 0, 0]
