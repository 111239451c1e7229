import torch

from strategies.aggregation import fltrust

REFERENCE = torch.tensor([0.0, 5.0])
# Cosines 1, 0.8, -1, 0; rescaled to norm 5 the first two are (0, 5) and (3, 4).
UPDATES = torch.tensor([[0.0, 1.0], [30.0, 40.0], [0.0, -9.0], [7.0, 0.0]])


def test_updates_are_rescaled_to_the_reference_and_weighed_by_their_cosine():
    result = fltrust(UPDATES, REFERENCE)
    torch.testing.assert_close(result.update, torch.tensor([4 / 3, 41 / 9]))
    torch.testing.assert_close(result.weights, torch.tensor([5 / 9, 4 / 9, 0, 0]).double())


def test_suspicion_is_minus_the_cosine():
    expected = torch.tensor([-1, -0.8, 1, 0], dtype=torch.float64)
    torch.testing.assert_close(fltrust(UPDATES, REFERENCE).suspicion, expected)


def test_nobody_who_points_away_from_the_root_data_is_heard():
    result = fltrust(-UPDATES[:2], REFERENCE)
    assert result.update.tolist() == [0.0, 0.0]
    assert result.weights.tolist() == [0.0, 0.0]


def test_an_update_of_norm_zero_is_not_trusted():
    result = fltrust(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), REFERENCE)
    assert result.weights.tolist() == [0.0, 1.0]
    assert result.suspicion.tolist() == [0.0, -1.0]


def test_a_reference_of_norm_zero_moves_nothing():
    result = fltrust(UPDATES, torch.zeros(2))
    assert result.update.tolist() == [0.0, 0.0]


def test_the_prior_multiplies_the_trust():
    result = fltrust(UPDATES, REFERENCE, prior=torch.tensor([0.4, 0.5, 0.1, 0.0]))
    torch.testing.assert_close(result.weights, torch.tensor([0.5, 0.5, 0, 0]).double())
    torch.testing.assert_close(result.update, torch.tensor([1.5, 4.5]))
