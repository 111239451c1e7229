import torch
from pretended_device import ELSEWHERE, PretendedDevice

from strategies.aggregation import aggregate, norm_clipping

UPDATES = torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0]])  # norms 5, 1, 10


def test_longer_updates_are_scaled_to_the_bound_and_shorter_ones_kept():
    result = norm_clipping(UPDATES, max_norm=5.0)  # the mean of (3, 4), (0, 1) and (3, 4)
    torch.testing.assert_close(result.update, torch.tensor([2.0, 3.0]))


def test_weights_are_factors_over_their_sum_and_suspicion_is_the_norm():
    result = norm_clipping(UPDATES, max_norm=5.0)
    torch.testing.assert_close(result.weights, torch.tensor([0.4, 0.4, 0.2]).double())
    assert result.suspicion.tolist() == [5.0, 1.0, 10.0]


def test_the_bound_is_the_median_norm_unless_given():
    assert norm_clipping(UPDATES).update.tolist() == norm_clipping(UPDATES, 5.0).update.tolist()


def test_the_bound_is_midway_between_two_middle_norms():
    updates = torch.tensor([[1.0], [2.0], [6.0], [9.0]])  # clipped to 1, 2, 4, 4
    assert norm_clipping(updates).update.tolist() == [2.75]


def test_the_prior_multiplies_the_factors():
    result = norm_clipping(UPDATES, 5.0, prior=torch.tensor([0.0, 0.5, 0.5]))
    torch.testing.assert_close(result.update, torch.tensor([1.5, 2.5]))
    torch.testing.assert_close(result.weights, torch.tensor([0, 2 / 3, 1 / 3]).double())


def test_an_update_of_norm_zero_stays_zero():
    result = norm_clipping(torch.zeros(3, 2))
    assert result.update.tolist() == [0.0, 0.0]
    torch.testing.assert_close(result.weights, torch.full((3,), 1 / 3).double())


def test_the_host_waits_for_the_norms_and_for_the_weights_alone(monkeypatch):
    monkeypatch.setattr(aggregate, "SMALL", 0)
    with PretendedDevice() as device:
        norm_clipping(UPDATES.to(ELSEWHERE))
    assert [read.size for read in device.reads] == [3, 6]  # with the weights the norms once more
