import numpy as np
import torch

from strategies.aggregation import norm_clipping, weak_dp


def test_without_noise_it_is_norm_clipping():
    updates = torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0]])
    noiseless = weak_dp(updates, np.random.default_rng(0), max_norm=4.0, noise_std=0.0)
    clipped = norm_clipping(updates, max_norm=4.0)  # the median norm is 5
    assert torch.equal(noiseless.update, clipped.update)
    assert torch.equal(noiseless.weights, clipped.weights)


def test_noise_of_the_given_deviation_is_added_to_every_parameter():
    result = weak_dp(torch.zeros(3, 40_000), np.random.default_rng(0), 1.0, noise_std=0.5)
    assert abs(result.update.std().item() - 0.5) < 0.01
    assert abs(result.update.mean().item()) < 0.01


def test_the_same_generator_gives_the_same_noise():
    first, second = (weak_dp(torch.zeros(3, 9), np.random.default_rng(7), 1.0, 1.0) for _ in "ab")
    assert torch.equal(first.update, second.update)
