import pytest
import torch

from strategies.aggregation import k_norm

UPDATES = torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0]])  # norms 5, 1, 10


def test_drops_the_longest_and_averages_the_rest():
    result = k_norm(UPDATES, n_malicious=1)
    assert result.update.tolist() == [1.5, 2.5]
    assert result.weights.tolist() == [0.5, 0.5, 0]
    assert result.suspicion.tolist() == [5, 1, 10]


def test_of_equal_norms_the_lowest_rows_stay_and_copies_share():
    assert k_norm(torch.eye(4), n_malicious=2).weights.tolist() == [0.5, 0.5, 0, 0]
    assert k_norm(torch.ones(4, 1), n_malicious=2).weights.tolist() == [0.25] * 4


def test_copies_of_every_row_that_stays_share_and_not_of_the_last_alone():
    # All have norm 1 but the last, which is shorter.
    updates = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    weights = k_norm(updates, n_malicious=1).weights.tolist()
    assert weights == pytest.approx([1 / 6, 1 / 3, 1 / 6, 1 / 3])
    updates = updates[[0, 1, 0, 1, 3]]
    weights = k_norm(updates, n_malicious=2).weights.tolist()
    assert weights == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 3])
    prior = torch.tensor([0.1, 0.3, 0.3, 0.1, 0.2])  # of the three that stay, in sixths: 1, 3, 2
    result = k_norm(updates, n_malicious=2, prior=prior)
    assert result.weights.tolist() == pytest.approx([1 / 24, 3 / 8, 1 / 8, 1 / 8, 1 / 3])
    torch.testing.assert_close(result.update, result.weights.float() @ updates)
