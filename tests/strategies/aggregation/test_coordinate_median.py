import numpy as np
import pytest
import torch

from strategies.aggregation import coordinate_median


def test_takes_the_middle_value_of_each_coordinate():
    updates = torch.tensor([[1.0, 9.0], [2.0, 7.0], [100.0, 8.0]])
    result = coordinate_median(updates)
    assert result.update.tolist() == [2.0, 8.0]
    assert result.weights.tolist() == [0, 0.5, 0.5]
    assert result.suspicion.tolist() == [1, 0.5, 0.5]


def test_of_an_even_number_it_is_the_mean_of_the_two_middle_values():
    result = coordinate_median(torch.tensor([[1.0], [2.0], [4.0], [100.0]]))
    assert result.update.tolist() == [3.0]  # torch.median says 2
    assert result.weights.tolist() == [0, 0.5, 0.5, 0]


def test_the_two_middle_values_are_weighed_by_their_prior():
    updates = torch.tensor([[1.0], [2.0], [4.0], [100.0]])
    result = coordinate_median(updates, prior=torch.tensor([0.2, 0.15, 0.45, 0.2]))
    torch.testing.assert_close(result.update, torch.tensor([3.5]))


def test_agrees_with_numpy_on_every_count_of_clients():
    for n in range(1, 8):
        updates = torch.randn(n, 30, generator=torch.Generator().manual_seed(n))
        expected = torch.from_numpy(np.median(updates.numpy(), axis=0))
        torch.testing.assert_close(coordinate_median(updates).update, expected)


def test_those_who_sent_the_median_alike_share_it():
    result = coordinate_median(torch.tensor([[3.0, 1.0], [3.0, 1.0], [3.0, 9.0]]))
    assert result.weights.tolist() == pytest.approx([5 / 12, 5 / 12, 1 / 6])
    torch.testing.assert_close(result.update, torch.tensor([3.0, 1.0]))


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_updates_of_any_size_pull_in_the_same_proportion(size):
    updates = torch.tensor([[1.0, 4.0], [2.0, 3.0], [3.0, 5.0]])
    pulls = coordinate_median(size * updates).pulls
    assert pulls is not None  # of 2 and 4, which are the second's and the first's
    torch.testing.assert_close(pulls / size**2, torch.tensor([16, 4, 0]).double())
