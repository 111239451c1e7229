import torch

from strategies.aggregation import mean
from strategies.aggregation.aggregate import dot_products, norms_of, weighted_sum


def test_equal_weights_give_the_plain_mean():
    result = mean(torch.tensor([[0.0, 3.0], [2.0, 5.0]]))
    assert result.update.tolist() == [1.0, 4.0]
    assert result.weights.tolist() == [0.5, 0.5]


def test_clients_count_in_proportion_to_their_prior():
    result = mean(torch.tensor([[0.0], [4.0]]), prior=torch.tensor([0.25, 0.75]))
    assert result.update.tolist() == [3.0]
    assert result.weights.tolist() == [0.25, 0.75]


def test_nobody_is_suspected():
    assert mean(torch.tensor([[0.0], [100.0]])).suspicion.tolist() == [0.0, 0.0]


def test_opposite_giants_cancel_and_leave_the_small_update():
    # In float32, 1e8 + 1 - 1e8 is 0.
    updates = torch.tensor([[1e8], [1.0], [-1e8]])
    assert weighted_sum(updates, torch.ones(3)).tolist() == [1.0]


def test_a_row_of_weight_zero_is_not_read():
    updates = torch.tensor([[torch.inf, torch.nan], [1.0, 2.0]])
    assert weighted_sum(updates, torch.tensor([0.0, 1.0])).tolist() == [1.0, 2.0]


def test_norms_and_products_of_giants_are_finite():
    updates = torch.tensor([[3e30, 4e30], [3.0, 4.0]])
    torch.testing.assert_close(norms_of(updates), torch.tensor([5e30, 5.0], dtype=torch.float64))
    products = dot_products(updates, updates[0])
    torch.testing.assert_close(products, torch.tensor([2.5e61, 2.5e31], dtype=torch.float64))


def test_the_norm_of_a_row_longer_than_a_block_counts_all_of_it():
    updates = torch.tensor([[1.0], [2.0]]).expand(2, 810_000)
    torch.testing.assert_close(norms_of(updates), torch.tensor([900.0, 1800.0]).double())
