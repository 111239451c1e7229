from functools import partial

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform

from strategies.aggregation import flame

# Three point to the right; norms 1, 2, 4, 1, 3 have the median 2.
UPDATES = torch.tensor([[1.0, 0.0], [2.0, 0.01], [4.0, -0.02], [-1.0, 0.0], [0.0, -3.0]])

noiseless = partial(flame, rng=np.random.default_rng(0), noise_factor=0.0)


def test_admits_the_majority_direction_and_clips_it_to_the_median_norm():
    result = noiseless(UPDATES)
    torch.testing.assert_close(result.update, torch.tensor([5 / 3, 0.0]), rtol=1e-4, atol=1e-3)
    expected = torch.tensor([0.4, 0.4, 0.2, 0, 0]).double()
    torch.testing.assert_close(result.weights, expected, rtol=1e-4, atol=1e-4)


def test_whole_models_are_compared_where_the_received_one_is_known():
    # Beside (0, 10) the models' directions are 6, 6, 0, 1 and 11 tenths to the right.
    updates = torch.tensor([[6.0, 0.0], [6.0, 0.1], [0.0, 9.0], [1.0, 0.0], [11.0, 0.0]])
    models = noiseless(updates, received=torch.tensor([0.0, 10.0]))
    assert (models.weights > 0).tolist() == [True, True, False, False, True]
    cosines = torch.nn.functional.cosine_similarity
    whole = (updates + torch.tensor([0.0, 10.0])).double()
    distances = 1 - torch.stack([cosines(whole, row[None]) for row in whole])
    torch.testing.assert_close(models.suspicion, distances[:, models.weights > 0].mean(dim=1))


def test_models_far_larger_than_updates_lose_no_digits():
    updates = 1e-4 * torch.randn(9, 50, generator=torch.Generator().manual_seed(0))
    received = torch.ones(50)
    exact = noiseless(updates.double(), received=received.double())
    assert torch.equal(noiseless(updates, received=received).weights > 0, exact.weights > 0)
    models = (updates.double() + received.double()).numpy()
    distances = torch.from_numpy(squareform(pdist(models, "cosine")))
    expected = distances[:, exact.weights > 0].mean(dim=1)
    torch.testing.assert_close(exact.suspicion, expected, rtol=1e-5, atol=0.0)


def test_suspicion_is_the_mean_cosine_distance_to_the_admitted():
    suspicion = noiseless(UPDATES).suspicion
    assert suspicion[:3].max() < 1e-3
    torch.testing.assert_close(
        suspicion[3:], torch.tensor([2.0, 1.0]).double(), rtol=1e-2, atol=1e-3
    )


def test_noise_grows_with_the_median_norm():
    updates = torch.zeros(5, 10_000)
    updates[:, 0] = torch.tensor([1.0, 2.0, 4.0, 1.0, 3.0])
    noisy = flame(updates, np.random.default_rng(0), noise_factor=0.01).update
    assert abs(noisy[1:].std().item() - 0.02) < 1e-3


def test_of_two_middle_norms_the_lower_is_the_median():
    result = noiseless(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))  # clipped to 1, 2, 2 and 2
    torch.testing.assert_close(result.update, torch.tensor([1.75]))


def test_the_prior_weighs_the_admitted():
    prior = torch.tensor([0.6, 0.2, 0.0, 0.1, 0.1])
    result = noiseless(UPDATES, prior=prior)
    torch.testing.assert_close(
        result.weights, torch.tensor([0.75, 0.25, 0, 0, 0]).double(), rtol=1e-4, atol=1e-4
    )


def test_a_second_cluster_that_is_no_majority_is_rejected_whole():
    updates = UPDATES.clone()
    updates[4] = torch.tensor([-3.0, 0.01])  # beside the fourth
    assert (noiseless(updates).weights > 0).tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("n", [2, 3, 8, 15])
def test_admits_the_first_majority_that_single_linkage_joins(n):
    for seed in range(10):
        updates = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)).double()
        updates[: n // 3] += 2
        tree = linkage(pdist(updates.numpy(), "cosine"), "single")  # by increasing distance
        height = next(distance for _, _, distance, size in tree if size > n // 2)
        groups = fcluster(tree, height, "distance")
        admitted = groups == np.bincount(groups).argmax()
        assert (noiseless(updates).weights > 0).tolist() == admitted.tolist()
