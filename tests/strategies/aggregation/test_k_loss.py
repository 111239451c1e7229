import torch

from strategies.aggregation import k_loss

UPDATES = torch.tensor([[1.0], [2.0], [3.0], [4.0]])


def test_hears_only_the_largest_loss_among_those_assumed_honest():
    result = k_loss(UPDATES, torch.tensor([3.0, 1.0, 2.0, 9.0]), n_malicious=1)
    assert result.update.tolist() == [1.0]
    assert result.weights.tolist() == [1, 0, 0, 0]
    assert result.suspicion.tolist() == [3, 1, 2, 9]


def test_of_equal_losses_the_lowest_row_counts_as_the_smallest():
    assert k_loss(UPDATES, torch.ones(4), n_malicious=1).weights.tolist() == [0, 0, 1, 0]


def test_a_client_alone_is_heard_and_one_of_prior_zero_adds_nothing():
    assert k_loss(UPDATES[:1], torch.ones(1), n_malicious=0).update.tolist() == [1.0]
    prior = torch.tensor([0.0, 0.5, 0.25, 0.25])
    result = k_loss(UPDATES, torch.tensor([3.0, 1.0, 2.0, 9.0]), 1, prior)
    assert result.weights.tolist() == [0, 0, 0, 0]
    assert result.update.tolist() == [0.0]
