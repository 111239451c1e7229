from functools import partial

import pytest
import torch
from pretended_device import ELSEWHERE, PretendedDevice
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.fft import dct
from scipy.spatial.distance import pdist, squareform

from strategies.aggregation import TooFewClientsError, freqfed

# Of a matrix [[a, b], [c, d]] the coefficients are (a + b + c + d) / 2, (a - b + c - d) / 2,
# (a + b - c - d) / 2 and (a - b - c + d) / 2. The last is not low: i + j = 2 > 1.
ACROSS, DOWN, DIAGONAL = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])


def test_only_low_frequencies_tell_clients_apart():
    # The first four are alike but in the highest frequency, the others in all but a low one.
    usual = torch.ones(4) + torch.outer(torch.tensor([0.0, 2, -5, 9]), DIAGONAL)
    result = freqfed(torch.cat([usual, torch.stack([ACROSS, 1 + 2 * DOWN])]))
    torch.testing.assert_close(result.weights, torch.tensor([1.0, 1, 1, 1, 0, 0]).double() / 4)
    torch.testing.assert_close(result.update, usual.mean(dim=0))
    expected = torch.tensor([0, 0, 0, 0, 1, 1 - 5**-0.5]).double()
    torch.testing.assert_close(result.suspicion, expected, atol=1e-6, rtol=0.0)


def test_of_a_row_that_fills_no_square_the_rest_is_zero():
    # Low coefficients (1, 3, -1) / 2 and (1, 1, 1) / 2; both are kept, each 0 from itself.
    suspicion = freqfed(torch.tensor([[1.0, -1, 1], [1, 0, 0]])).suspicion
    torch.testing.assert_close(suspicion, torch.full((2,), (1 - 3 / 33**0.5) / 2).double())


@pytest.mark.parametrize("low_fraction", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("n", [2, 9, 14])
def test_keeps_the_first_majority_that_single_linkage_joins_by_low_frequencies(n, low_fraction):
    for seed in range(5):
        draws = torch.Generator().manual_seed(seed)
        updates, received = torch.randn(n, 30, generator=draws), torch.randn(30, generator=draws)
        models = torch.zeros(n, 36)
        models[:, :30] = updates + received
        matrices = models.double().view(n, 6, 6).numpy()
        waves = dct(dct(matrices, axis=1, norm="ortho"), axis=2, norm="ortho")
        limit = int(6 * low_fraction)
        low = [[w[i, j] for i in range(6) for j in range(6) if i + j <= limit] for w in waves]
        distances = pdist(low, "cosine")
        tree = linkage(distances, "single")
        groups = fcluster(tree, next(h for _, _, h, size in tree if size > n // 2), "distance")
        sizes = [int((groups == group).sum()) for group in groups]
        kept = torch.tensor([size > n // 2 for size in sizes])
        result = freqfed(updates, received, low_fraction)
        assert (result.weights > 0).tolist() == kept.tolist()
        expected = torch.from_numpy(squareform(distances))[:, kept].mean(dim=1)
        torch.testing.assert_close(result.suspicion, expected, atol=1e-5, rtol=0.0)


def test_whole_models_are_compared_where_the_received_one_is_known():
    # Beside 10 times ACROSS the models of the first three are at 0 to 1 tenths of DOWN, the fourth,
    # whose update has the direction of theirs, at 5.
    updates = torch.outer(torch.tensor([0.0, 0.5, 1, 5, -5]), DOWN)
    models = freqfed(updates, received=10 * ACROSS)
    assert (models.weights > 0).tolist() == [True, True, True, False, False]
    assert (freqfed(updates).weights > 0).tolist() == [False, True, True, True, False]


def in_groups(*groups: tuple[float, int]) -> torch.Tensor:
    """Return updates at some angles, in degrees: for each of them so many, 1 degree apart."""
    angles = [at + step for at, size in groups for step in range(size)]
    radians = torch.tensor(angles).double().deg2rad()
    return torch.outer(radians.cos(), ACROSS.double()) + torch.outer(radians.sin(), DOWN.double())


def kept(updates: torch.Tensor, min_cluster_size: int | None = 2) -> list[int]:
    weights = freqfed(updates, min_cluster_size=min_cluster_size).weights
    return weights.nonzero().flatten().tolist()


def test_the_largest_cluster_need_not_be_a_majority_if_so_told():
    thirds = in_groups((0, 3), (120, 4), (240, 3))
    assert kept(thirds) == [3, 4, 5, 6]
    assert len(kept(thirds, None)) >= 6
    assert kept(thirds.flip(0)) == [3, 4, 5, 6]


def test_outliers_are_no_cluster_though_they_are_most():
    # Ten in all directions, and three together.
    updates = torch.cat(
        [in_groups(*((36 * i + i**2 / 9, 1) for i in range(10))), in_groups((20, 3))]
    )
    assert kept(updates, 3) == [10, 11, 12]


def test_of_clusters_of_equal_size_the_tighter_is_kept_then_the_first():
    tight = in_groups((120, 3))
    loose = in_groups((0, 1), (2, 1), (4, 1))
    assert kept(torch.cat([loose, tight])) == [3, 4, 5]
    assert kept(torch.cat([tight, loose])) == [0, 1, 2]


def test_a_cluster_larger_than_the_sample_is_refused():
    rule = partial(freqfed, min_cluster_size=5)
    rule(in_groups((0, 5)))
    with pytest.raises(TooFewClientsError, match="n >= 5 clients, got n=4"):
        rule(in_groups((0, 4)))


def test_the_prior_weighs_those_kept():
    prior = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    weights = freqfed(in_groups((0, 3), (90, 1)), prior=prior).weights
    torch.testing.assert_close(weights, torch.tensor([1, 2, 3, 0]).double() / 6)


def test_updates_are_transformed_where_they_are():
    updates = torch.randn(6, 400, generator=torch.Generator().manual_seed(0))
    with PretendedDevice() as device:
        there = updates.to(ELSEWHERE)
        device.reads.clear()
        freqfed(there)
        assert max(read.size for read in device.reads) <= 6 * 6  # only distances come to the host
