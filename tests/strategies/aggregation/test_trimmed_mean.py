import pytest
import torch
from scipy.stats import trim_mean

from strategies.aggregation import mean, trimmed_mean

# Without the smallest and largest of each column: {2, 3, 4} and {5, 6, 7}.
UPDATES = torch.tensor([[1.0, -50.0], [2.0, 5.0], [3.0, 6.0], [4.0, 10.0], [100.0, 7.0]])


def test_drops_the_smallest_and_the_largest_of_each_coordinate():
    result = trimmed_mean(UPDATES, n_malicious=1)
    torch.testing.assert_close(result.update, torch.tensor([3.0, 6.0]))


def test_weights_are_shares_of_the_coordinates_survived():
    result = trimmed_mean(UPDATES, n_malicious=1)
    expected = torch.tensor([0, 1 / 3, 1 / 3, 1 / 6, 1 / 6], dtype=torch.float64)
    torch.testing.assert_close(result.weights, expected, rtol=1e-6, atol=1e-7)
    assert result.suspicion.tolist() == [1.0, 0.0, 0.0, 0.5, 0.5]


def test_survivors_are_weighed_by_their_prior():
    prior = torch.tensor([0.4, 0.1, 0.3, 0.2])
    result = trimmed_mean(torch.tensor([[0.0], [1.0], [3.0], [100.0]]), 1, prior)
    torch.testing.assert_close(result.update, torch.tensor([2.5]))
    expected = torch.tensor([0, 0.25, 0.75, 0], dtype=torch.float64)
    torch.testing.assert_close(result.weights, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("values", "survivors"),
    [
        ([1.0, 1.0, 1.0, 1.0, 5.0], [3 / 4, 3 / 4, 3 / 4, 3 / 4, 0]),
        ([5.0, 5.0, 5.0, 1.0, 1.0], [2 / 3, 2 / 3, 2 / 3, 1 / 2, 1 / 2]),
        ([2.0, 2.0, 2.0, 2.0, 2.0], [3 / 5, 3 / 5, 3 / 5, 3 / 5, 3 / 5]),
    ],
)
def test_equal_values_share_alike_in_the_ranks_that_are_kept(values, survivors):
    result = trimmed_mean(torch.tensor(values)[:, None], n_malicious=1)
    assert (1 - result.suspicion).tolist() == pytest.approx(survivors)
    assert result.weights.tolist() == pytest.approx([share / 3 for share in survivors])
    expected = torch.tensor(values).sort().values[1:4].mean(dim=0, keepdim=True)
    torch.testing.assert_close(result.update, expected)


def test_what_equal_values_share_is_weighed_by_their_prior():
    prior = torch.tensor([0.5, 0.2, 0.1, 0.2])
    result = trimmed_mean(torch.tensor([[1.0], [1.0], [1.0], [0.0]]), 1, prior)
    assert result.weights.tolist() == pytest.approx([5 / 8, 2 / 8, 1 / 8, 0])
    torch.testing.assert_close(result.update, torch.tensor([1.0]))


def test_trimming_nothing_is_the_mean():
    updates = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    result, plain = trimmed_mean(updates, 0), mean(updates)
    torch.testing.assert_close(result.update, plain.update)
    torch.testing.assert_close(result.weights, plain.weights, rtol=1e-6, atol=1e-7)


def test_weights_over_hundreds_of_thousands_of_coordinates_sum_to_1():
    updates = torch.randn(5, 300_000, generator=torch.Generator().manual_seed(0))
    prior = torch.tensor([0.1, 0.3, 0.2, 0.1, 0.3]).double()
    for values in (updates, updates.round()):  # without equal values and with many
        assert trimmed_mean(values, 1).weights.sum().item() == pytest.approx(1, abs=1e-6)
        weights = trimmed_mean(values, 1, prior).weights
        assert weights.sum().item() == pytest.approx(1, abs=1e-6)


def test_a_lift_of_those_who_are_trimmed_leaves_the_survivors_their_mean():
    prior = torch.tensor([1.0, 1e-60, 2e-60, 1e-60, 1e-20], dtype=torch.float64)
    result = trimmed_mean(torch.tensor([[0.0], [1.0], [2.0], [7.0], [9.0]]), 1, prior)
    assert result.update.tolist() == [3.0]
    torch.testing.assert_close(result.weights, torch.tensor([0, 0.25, 0.5, 0.25, 0]).double())
    assert result.pulls is not None
    assert result.pulls.sum().item() == pytest.approx(9)


def test_where_only_clients_of_prior_zero_survive_nothing_moves():
    prior = torch.tensor([0.5, 0.0, 0.0, 0.0, 0.5])
    result = trimmed_mean(torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]]), 1, prior)
    assert result.update.tolist() == [0.0]
    assert result.weights.tolist() == [0.0] * 5


def test_more_columns_than_a_block_are_all_trimmed():
    updates = torch.randn(5, 200_003, generator=torch.Generator().manual_seed(0))
    expected = updates.sort(dim=0).values[1:-1].mean(dim=0)
    torch.testing.assert_close(trimmed_mean(updates, 1).update, expected)


@pytest.mark.parametrize(("n", "n_malicious"), [(5, 2), (12, 1), (31, 7)])
def test_agrees_with_scipy(n, n_malicious):
    updates = torch.randn(n, 40, generator=torch.Generator().manual_seed(n)).double()
    for values in (updates, updates.round()):  # with many equal ones, of which a third may stay
        # scipy rounds the number to drop down from a share.
        expected = torch.from_numpy(trim_mean(values.numpy(), (n_malicious + 0.5) / n, axis=0))
        result = trimmed_mean(values, n_malicious).update
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-14)


def test_blocks_give_the_same_bits_on_any_number_of_threads():
    updates = torch.randn(5, 200_003, generator=torch.Generator().manual_seed(1))
    before, results = torch.get_num_threads(), []
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            results.append(trimmed_mean(updates, 1))
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    for alone, together in zip(results[0][:3], results[1][:3], strict=True):
        assert torch.equal(alone, together)


def test_weights_are_shares_of_the_coordinates_in_which_something_moves():
    prior = torch.tensor([0.5, 0.0, 0.5])
    result = trimmed_mean(torch.tensor([[1.0, 3.0], [2.0, 2.0], [0.0, 2.5]]), 1, prior)
    assert result.update.tolist() == [1.0, 2.5]  # clients 0 and 2 are in the middle
    assert result.weights.tolist() == [0.5, 0, 0.5]
    result = trimmed_mean(torch.tensor([[1.0, 1.0], [2.0, 2.0], [0.0, 4.0]]), 1, prior)
    assert result.update.tolist() == [1.0, 0.0]  # in the second client 1
    assert result.weights.tolist() == [0.5, 0, 0]


def test_pulls_of_updates_whose_squares_float32_cannot_hold_are_known():
    updates = 1e25 * torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0]])
    result = trimmed_mean(updates, n_malicious=1)  # the mean of the two in the middle
    assert result.pulls is not None
    # Half of each is in the mean, 2.5 in both coordinates: 2 · 2.5 · 2 / 2 and 2 · 2.5 · 3 / 2.
    assert (result.pulls / 1e50).tolist() == pytest.approx([0, 5, 7.5, 0])
