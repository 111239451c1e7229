import torch

from strategies.aggregation import centred_clipping, mean

UPDATES = torch.tensor([[10.0], [-2.0]])


def test_moves_by_the_mean_of_the_clipped_differences():
    result = centred_clipping(UPDATES, {}, radius=3.0)  # 3 and -2
    assert result.update.tolist() == [0.5]
    torch.testing.assert_close(result.weights, torch.tensor([3 / 13, 10 / 13]).double())
    assert result.multipliers is not None
    torch.testing.assert_close(result.multipliers.float() @ UPDATES, result.update)
    assert result.suspicion.tolist() == [10, 2]


def test_differences_are_clipped_by_their_norm_not_by_coordinate():
    result = centred_clipping(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), {}, radius=1.0)
    torch.testing.assert_close(result.update, torch.tensor([0.3, 0.9]))


def test_the_centre_is_carried_over_rounds():
    first = centred_clipping(UPDATES, {}, radius=3.0)
    second = centred_clipping(UPDATES, first.memory, radius=3.0)  # from 0.5: 3 and -2.5
    assert second.update.tolist() == [0.75]


def test_two_iterations_are_two_rounds_at_once():
    assert centred_clipping(UPDATES, {}, radius=3.0, n_iterations=2).update.tolist() == [0.75]


def test_above_all_differences_it_is_the_mean():
    updates = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        centred_clipping(updates, {}, radius=100.0).update, mean(updates).update
    )


def test_the_prior_weighs_the_differences():
    result = centred_clipping(UPDATES, {}, radius=3.0, prior=torch.tensor([0.2, 0.8]))
    torch.testing.assert_close(result.update, torch.tensor([-1.0]))
