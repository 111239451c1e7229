import numpy as np
import pytest
import torch
from pretended_device import ELSEWHERE, PretendedDevice
from scipy.optimize import minimize

from strategies.aggregation import geometric_median


def test_of_an_odd_number_of_collinear_points_it_is_the_middle_one():
    updates = torch.tensor([[0.0, 0.0], [1.0, 1.0], [9.0, 9.0]])
    result = geometric_median(updates)
    torch.testing.assert_close(result.update, torch.tensor([1.0, 1.0]), rtol=0, atol=1e-3)
    assert result.weights[1] > 0.99


def test_of_an_equilateral_triangle_it_is_the_centre():
    corners = torch.tensor([[1.0, 0.0], [-0.5, 3**0.5 / 2], [-0.5, -(3**0.5) / 2]])
    result = geometric_median(corners + 5)
    torch.testing.assert_close(result.update, torch.tensor([5.0, 5.0]))
    torch.testing.assert_close(result.weights, torch.full((3,), 1 / 3).double())
    torch.testing.assert_close(result.suspicion, torch.ones(3).double())


def test_suspicion_is_the_distance_to_the_result_however_few_the_steps():
    updates = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0]])
    result = geometric_median(updates, n_iterations=1)
    expected = torch.linalg.vector_norm(updates - result.update, dim=1).double()
    torch.testing.assert_close(result.suspicion, expected, rtol=1e-5, atol=1e-6)


def test_more_than_half_of_the_prior_decides_alone():
    updates = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0]])
    result = geometric_median(updates, prior=torch.tensor([0.2, 0.2, 0.6]))
    torch.testing.assert_close(result.update, torch.tensor([0.0, 3.0]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_a_general_minimiser(seed):
    updates = torch.randn(9, 3, generator=torch.Generator().manual_seed(seed)).double()
    points = updates.numpy()
    expected = minimize(
        lambda z: np.linalg.norm(points - z, axis=1).sum(), points.mean(axis=0), tol=1e-12
    ).x
    result = geometric_median(updates).update
    torch.testing.assert_close(result, torch.from_numpy(expected), rtol=0, atol=1e-4)


def test_where_most_are_one_point_that_point_is_the_median():
    updates = torch.tensor([[2.0], [2.0], [7.0]])
    result = geometric_median(updates)
    assert result.update.tolist() == [2.0]
    assert result.weights.tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_of_two_points_with_half_of_the_prior_each_it_is_the_mean(size):
    two = torch.tensor([[0.0, 0.0], [0.0, size]])
    for updates in (two, two.flip(0), two.repeat(2, 1), two.repeat_interleave(3, dim=0)):
        result = geometric_median(updates)
        torch.testing.assert_close(result.update, torch.tensor([0.0, size / 2]))
        torch.testing.assert_close(
            result.weights, torch.full_like(result.weights, 1 / len(updates))
        )
    uneven = torch.tensor([0.25, 0.5, 0.25])
    result = geometric_median(two[[0, 1, 0]], prior=uneven)
    torch.testing.assert_close(result.weights, uneven.double())


def test_half_of_the_updates_at_one_point_decide_alone_where_the_others_disagree():
    # The others' unit vectors come to 2 · 3/5 along the first axis, less than the two at the point.
    updates = torch.tensor([[1.0, 1.0], [1.0, 1.0], [4.0, 5.0], [4.0, -3.0]])
    assert geometric_median(updates).update.tolist() == [1.0, 1.0]
    # In one direction all is a median from the point to the nearest other.
    updates = torch.tensor([[1.0], [1.0], [4.0], [100.0]])
    assert 1 < geometric_median(updates).update.item() < 4


def test_one_point_that_most_send_is_not_the_median_where_it_has_little_weight():
    updates = torch.tensor([[2.0], [2.0], [2.0], [7.0], [7.0]])
    prior = torch.tensor([0.1, 0.1, 0.1, 0.35, 0.35])
    result = geometric_median(updates, prior=prior)
    assert result.update.item() == pytest.approx(7, abs=1e-4)
    assert result.weights[3:].sum().item() == pytest.approx(1, abs=1e-4)


def test_giants_pull_no_harder_than_others():
    honest = torch.randn(9, 40, generator=torch.Generator().manual_seed(1))
    near, far = honest.clone(), honest.clone()
    near[0], far[0] = 1e4, 1e30
    torch.testing.assert_close(
        geometric_median(far).update, geometric_median(near).update, rtol=0, atol=1e-3
    )


def test_a_large_common_part_costs_no_digits():
    updates = torch.randn(8, 50, generator=torch.Generator().manual_seed(2))
    shifted = 1000 + 1e-3 * updates
    exact = geometric_median(shifted.double()).update
    torch.testing.assert_close(geometric_median(shifted).update.double(), exact, rtol=1e-7, atol=0)


def test_the_host_waits_once_in_each_step():
    updates = torch.randn(9, 40, generator=torch.Generator().manual_seed(1))
    reads = []
    for n_iterations in (1, 4):
        with PretendedDevice() as device:
            geometric_median(updates.to(ELSEWHERE), n_iterations, tolerance=0.0)
        reads.append(len(device.reads))
    assert reads[1] - reads[0] == 3
