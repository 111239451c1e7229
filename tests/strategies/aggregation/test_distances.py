from collections.abc import Iterator

import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import cosine_similarity

from strategies.aggregation.distances import centred_gram, cosines, squared_distances


def gaussian(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def direct(updates: torch.Tensor) -> torch.Tensor:
    """Return the distances in float64, one pair after the other."""
    exact = updates.double()
    return torch.stack([((exact - row) ** 2).sum(dim=1) for row in exact])


def assert_exact(updates: torch.Tensor, rtol: float = 1e-5) -> None:
    torch.testing.assert_close(squared_distances(updates), direct(updates), rtol=rtol, atol=0.0)


def test_distances_on_a_line_are_squared_gaps():
    updates = torch.tensor([[0.0], [1.0], [4.0]])
    assert squared_distances(updates).tolist() == [[0, 1, 16], [1, 0, 9], [16, 9, 0]]


@pytest.fixture(params=[1, 2])
def n_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.usefixtures("n_threads")
@pytest.mark.parametrize("row", range(8))
def test_one_giant_in_any_row_leaves_the_small_distances_exact(row):
    updates = 1 + 1e-3 * gaussian(8, 3000)
    updates[row] = 1e4 * gaussian(1, 3000, seed=1)
    assert_exact(updates)


def test_near_duplicates_far_from_everyone_are_exact():
    updates = gaussian(30, 500)
    updates[:12] = 1e3 + 1e-3 * gaussian(12, 500, seed=2)
    assert_exact(updates)


def test_clusters_inside_clusters_are_exact():
    updates = gaussian(16, 500)
    updates[8:] = 1e3 * gaussian(1, 500, seed=1) + gaussian(8, 500, seed=2)
    updates[12:] = updates[12] + 1e-3 * gaussian(4, 500, seed=3)
    updates[14:] = updates[14]
    assert_exact(updates)


def test_what_is_exact_stays_so_when_seen_from_further_away():
    base, out, along, across, *more = gaussian(7, 500) / 500**0.5  # nearly orthogonal, of length 1
    near = 10 * base + out  # 1 from the row of median norm: what is closer than 0.14 is blurred
    first, last = near, near + 0.15 * along
    pair = near + 0.02 * along, near + 0.02 * along + 0.0045 * across  # sharp from the first alone
    others = [near - 0.13 * along + 0.05 * way for way in more]  # so that the first comes first
    small = 5 * gaussian(7, 500, seed=1) / 500**0.5
    assert_exact(torch.stack([*small, 10 * base, first, last, *pair, *others]), rtol=1e-4)


def test_duplicates_are_at_distance_zero():
    updates = gaussian(1, 100).repeat(6, 1)
    assert squared_distances(updates).count_nonzero() == 0


@pytest.mark.usefixtures("n_threads")
@pytest.mark.parametrize("n", [9, 10, 30, 100, 101])
@pytest.mark.parametrize("d", [100, 1000])
def test_copies_have_the_very_same_distances_wherever_they_stand(n, d):
    updates = gaussian(n, d)
    updates[n // 2] = updates[n - 1] = updates[1]
    distances = squared_distances(updates)
    assert torch.equal(distances[1], distances[n // 2])
    assert torch.equal(distances[1], distances[n - 1])


def test_all_zero_updates_are_at_distance_zero():
    assert squared_distances(torch.zeros(4, 3)).count_nonzero() == 0


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e-20, 1e20, 1e30])
def test_squares_neither_overflow_nor_vanish(size):
    assert_exact(size * gaussian(7, 200))


def test_the_largest_float32_of_either_sign_is_measured():
    updates = gaussian(7, 100)
    updates[0], updates[1] = 3.4e38, -3.4e38
    assert_exact(updates)


def test_more_columns_than_a_block_are_all_counted():
    assert_exact(gaussian(5, 100_001))


def test_distances_agree_with_scipy():
    updates = gaussian(12, 700)
    expected = torch.from_numpy(cdist(updates.numpy(), updates.numpy(), "sqeuclidean"))
    torch.testing.assert_close(squared_distances(updates), expected, rtol=1e-5, atol=1e-9)


def test_cosines_agree_with_scikit_learn():
    updates = gaussian(9, 300) + 0.5
    updates[0] *= 1e6
    expected = torch.from_numpy(cosine_similarity(updates.double().numpy()))
    torch.testing.assert_close(cosines(updates), expected, rtol=0, atol=1e-6)


def test_no_cosine_is_beyond_1():
    one_way = gaussian(20, 1)
    assert cosines(one_way @ gaussian(1, 300, seed=1)).abs().max() <= 1


def test_distances_to_a_combination_can_be_read_off_the_centred_gram():
    updates = 3 + gaussian(10, 400)
    weights = torch.softmax(gaussian(1, 10, seed=1)[0].double(), dim=0)
    gram = centred_gram(updates)
    read_off = gram.diagonal() - 2 * gram @ weights + weights @ gram @ weights
    combination = (weights @ updates.double())[None].numpy()
    expected = torch.from_numpy(cdist(updates.numpy(), combination, "sqeuclidean")).squeeze(1)
    torch.testing.assert_close(read_off, expected, rtol=1e-5, atol=0)
