import numpy as np
import pytest
import torch

from strategies.aggregation import caf, mean


def test_fades_out_who_stands_out_and_keeps_the_tightest_mean():
    # The mean is 2 and τ is 4 (four times) and 64: c becomes 15/16 and 0, and nothing is spread.
    result = caf(torch.tensor([[0.0], [0.0], [0.0], [0.0], [10.0]]), n_malicious=1)
    assert result.update.tolist() == [0.0]
    torch.testing.assert_close(result.weights, torch.tensor([1, 1, 1, 1, 0]).double() / 4)
    torch.testing.assert_close(result.suspicion, torch.tensor([1, 1, 1, 1, 16]).double() / 16)


def test_confidence_fades_in_proportion_to_the_squared_projection():
    # Mean 2, τ = 4, 1, 0, 1, 36/… of -2, -1, 0, -1, 4: then c = 3/4, 15/16, 1, 15/16, 0.
    result = caf(torch.tensor([[0.0], [1.0], [2.0], [1.0], [6.0]]), n_malicious=1)
    expected = torch.tensor([12, 15, 16, 15, 0]).double() / 16
    torch.testing.assert_close(1 - result.suspicion, expected)
    torch.testing.assert_close(result.weights, expected / expected.sum())


def test_the_direction_of_largest_spread_is_the_one_that_counts():
    updates = torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
    updates[0] = 0
    updates[0, 4] = 30
    result = caf(updates, n_malicious=3)
    assert result.weights[0] < 1e-9


def test_the_tightest_mean_is_kept_and_not_the_last():
    # Spread 18/6 along x; without those two, 16/4 along y.
    updates = torch.tensor([[3.0, 0], [-3, 0], [0, 2], [0, 2], [0, -2], [0, -2]])
    result = caf(updates, n_malicious=2)
    torch.testing.assert_close(result.weights, torch.full((6,), 1 / 6).double())


def test_where_the_first_fading_takes_2f_off_it_is_the_mean():
    updates = torch.tensor([[0.0], [0.0], [0.0], [0.0], [9.0], [9.0]])  # c: 3/4, four times, and 0
    assert caf(updates, n_malicious=1).update.tolist() == [3.0]
    assert caf(updates, n_malicious=2).update.tolist() == [0.0]


def test_with_nobody_to_suspect_it_is_the_mean():
    updates = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(caf(updates, n_malicious=0).update, mean(updates).update)


def test_the_prior_multiplies_the_confidence():
    updates = torch.tensor([[0.0], [1.0], [2.0], [1.0], [6.0]])
    result = caf(updates, 1, prior=torch.tensor([0.4, 0.0, 0.3, 0.2, 0.1]))
    expected = torch.tensor([0.4 * 12, 0, 0.3 * 16, 0.2 * 15, 0]).double()
    torch.testing.assert_close(result.weights, expected / expected.sum(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_filter_on_the_covariance_itself(seed):
    updates = torch.randn(12, 5, generator=torch.Generator().manual_seed(seed)).double()
    updates[:3] += 4
    points, c, best, least = updates.numpy(), np.ones(12), None, np.inf
    while c.sum() > 12 - 2 * 3:
        mean_of_c = np.average(points, axis=0, weights=c)
        covariance = np.cov(points.T, aweights=c, ddof=0)
        values, vectors = np.linalg.eigh(covariance)
        if values[-1] < least:
            best, least = mean_of_c, values[-1]
        projections = ((points - mean_of_c) @ vectors[:, -1]) ** 2
        c = c * (1 - projections / projections[c > 0].max()).clip(min=0)
    assert best is not None
    torch.testing.assert_close(caf(updates, n_malicious=3).update, torch.from_numpy(best))
