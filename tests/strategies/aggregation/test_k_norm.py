import pytest
import torch

from strategies.aggregation import TooFewClientsError, k_norm

UPDATES = torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0]])  # norms 5, 1, 10


def test_drops_the_longest_and_averages_the_rest():
    result = k_norm(UPDATES, n_malicious=1)
    assert result.update.tolist() == [1.5, 2.5]
    assert result.weights.tolist() == [0.5, 0.5, 0]
    assert result.suspicion.tolist() == [5, 1, 10]


def test_of_equal_norms_the_lowest_rows_stay_and_copies_share():
    assert k_norm(torch.eye(4), n_malicious=2).weights.tolist() == [0.5, 0.5, 0, 0]
    assert k_norm(torch.ones(4, 1), n_malicious=2).weights.tolist() == [0.25] * 4


def test_somebody_must_be_left():
    with pytest.raises(TooFewClientsError, match="k_norm needs n >= f"):
        k_norm(UPDATES, n_malicious=3)
