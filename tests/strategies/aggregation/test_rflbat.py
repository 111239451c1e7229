import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.cluster.vq import kmeans2

from strategies.aggregation import rflbat
from strategies.aggregation.rflbat import _clusters, _least_alike
from strategies.aggregation.traits import traits_of


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_who_is_far_from_all_goes_and_then_who_is_far_from_those_left():
    # Summed distances are 36, 29, 24, 21, 20, … with median 24, then 21, 16, 13, 12, … with 16.
    updates = torch.arange(9.0)[:, None]
    for limit, second in ((1.25, 1), (1.4, 0)):
        result = rflbat(updates, rng(), first_limit=1.25, second_limit=limit)
        assert result.suspicion.tolist() == [3, second, 0, 0, 0, 0, 0, second, 3]
        assert (result.weights > 0).tolist() == (result.suspicion == 0).tolist()


def two_groups() -> torch.Tensor:
    """Return nine updates that all go right, and seven that go left, up and down."""
    right = torch.stack([torch.full((9,), 30.0), torch.linspace(-3, 3, 9)], dim=1)
    others = torch.stack([torch.full((7,), -1.0), torch.linspace(-3, 3, 7)], dim=1)
    return torch.cat([right, others])


def test_the_cluster_of_the_least_alike_is_heard_though_it_is_the_smaller():
    result = rflbat(two_groups(), rng())
    assert traits_of(rflbat).selects
    assert result.suspicion.tolist() == [2] * 9 + [0] * 7
    torch.testing.assert_close(result.update, torch.tensor([-1.0, 0.0]))


def test_the_prior_weighs_those_kept():
    prior = torch.arange(16).double() / 120
    weights = rflbat(two_groups(), rng(), prior=prior).weights
    torch.testing.assert_close(weights[9:], prior[9:] / prior[9:].sum())


def test_a_giant_is_thrown_out_among_twelve_and_its_size_does_not_matter():
    honest = 0.5 + torch.randn(11, 40, generator=torch.Generator().manual_seed(0))
    for size in (1e3, 1e30):
        giant = size * torch.randn(1, 40, generator=torch.Generator().manual_seed(1))
        assert rflbat(torch.cat([giant, honest]), rng()).suspicion.tolist() == [3] + [0] * 11


@pytest.mark.parametrize("n_groups", [1, 2, 3, 4])
def test_as_many_clusters_are_seen_as_there_are(n_groups):
    at = torch.arange(n_groups).repeat(8).numpy()
    points = 30 * np.stack([np.cos(at), np.sin(at)], axis=1) + rng(n_groups).random((len(at), 2))
    labels = _clusters(points, rng())
    assert len(np.unique(labels)) == n_groups
    assert (labels == labels[at]).all()


def test_of_twelve_places_far_from_each_other_ten_clusters_are_seen():
    points = np.stack([3.0 ** np.arange(12), np.zeros(12)], axis=1).repeat(2, axis=0)
    assert len(np.unique(_clusters(points, rng()))) == 10


@pytest.mark.parametrize(("end", "seen"), [(0.39, 2), (0.391, 1)])
def test_groups_just_far_enough_apart_by_the_gap_statistic_are_two_clusters(end, seen):
    line = np.concatenate([np.linspace(0, end, 6), np.linspace(1 - end, 1, 6)])
    points = np.stack([line, np.zeros(12)], axis=1)
    assert len(np.unique(_clusters(points, rng()))) == seen
    assert len(np.unique(slow_clusters(points, rng()))) == seen


def test_copies_in_two_places_are_two_clusters_and_in_one_place_one():
    copies = np.eye(2).repeat(5, axis=0)
    for size in (1.0, 1e-9):
        assert len(np.unique(_clusters(size * copies, rng()))) == 2
    copies[0, 0] += 1e-12  # as rounding may leave them
    assert len(np.unique(_clusters(copies, rng()))) == 2
    assert not _clusters(np.ones((5, 2)), rng()).any()
    assert not _clusters(np.eye(2), rng()).any()  # two are as far apart as can be


def alike(*groups: tuple[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return similarities and labels of groups of so many, each as alike as that."""
    labels = np.arange(len(groups)).repeat([size for size, _ in groups])
    similarity = np.where(labels[:, None] == labels, np.array([s for _, s in groups])[labels], -1.0)
    np.fill_diagonal(similarity, 1)
    return similarity, labels


def chosen(*groups: tuple[int, float]) -> int:
    similarity, labels = alike(*groups)
    (label,) = np.unique(labels[_least_alike(similarity, labels)])
    return label


def test_clients_are_alike_by_the_median_of_mean_cosines_their_own_among_them():
    assert chosen((2, 0.3), (4, 0.5)) == 1  # 0.65 and 0.625
    similarity, labels = alike((3, 0.0), (3, 0.55))  # means 1/3 and 0.7
    similarity[0, :3] = similarity[:3, 0] = 1.0  # 1, 2/3 and 2/3: their mean is 7/9
    assert _least_alike(similarity, labels).tolist() == [True] * 3 + [False] * 3


def test_one_alone_is_as_alike_as_can_be_and_of_equals_the_larger_is_heard():
    assert chosen((1, 1.0), (3, 0.99)) == 1
    assert chosen((1, 1.0), (2, 1.0)) == 1
    assert chosen((2, 0.5), (2, 0.5)) == 0
    assert chosen((2, 0.5 - 1e-12), (3, 0.625)) == 1  # means of 0.75, but for rounding
    similarity, labels = alike((2, 0.5), (2, 0.5))
    assert _least_alike(similarity, 1 - labels).tolist() == [True, True, False, False]
    similarity, labels = alike((2, 0.5), (1, 1.0))
    similarity[2, 2] = 0  # it does not move
    assert _least_alike(similarity, labels).tolist() == [True, True, False]


def slow_clusters(points: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Return labels, by the definition of the gap statistic."""

    def clustered(sample: np.ndarray, k: int) -> tuple[np.ndarray, float]:
        start = cut_tree(linkage(sample, "ward"), k).ravel()
        centres = np.stack([sample[start == label].mean(axis=0) for label in range(k)])
        centres, labels = kmeans2(sample, centres, iter=20, minit="matrix")
        return labels, np.log(((sample - centres[labels]) ** 2).sum())

    def gap(k: int) -> tuple[float, float]:
        logs = [clustered(sample, k)[1] for sample in references]
        error = np.std(logs) * np.sqrt(1 + 1 / 20)
        return float(np.mean(logs) - clustered(points, k)[1]), float(error)

    low, high = points.min(axis=0), points.max(axis=0)
    references = low + (high - low) * draws.random((20, len(points), 2))
    k = 1
    while gap(k)[0] < gap(k + 1)[0] - gap(k + 1)[1]:
        k += 1
    return clustered(points, k)[0]


def slow_rflbat(updates: np.ndarray, draws: np.random.Generator) -> list[int]:
    """Return who is kept, by loops, with principal components from the updates themselves."""
    centred = updates - updates.mean(axis=0)
    points = centred @ np.linalg.svd(centred)[2][:2].T

    def near(rows: list[int], limit: float) -> list[int]:
        summed = [sum(np.linalg.norm(points[i] - points[j]) for j in rows) for i in rows]
        return [i for i, far in zip(rows, summed, strict=True) if far <= limit * np.median(summed)]

    rows = near(list(range(len(points))), 10)
    labels, scores = slow_clusters(points[rows], draws), []
    for label in range(labels.max() + 1):
        own = [updates[i] for i, at in zip(rows, labels, strict=True) if at == label]
        cosine = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in own] for b in own]
        scores.append(1.0 if len(own) == 1 else np.median(np.mean(cosine, axis=1)))
    heard = [i for i, at in zip(rows, labels, strict=True) if at == np.argmin(scores)]
    return near(heard, 4)


def crowd(seed: int) -> torch.Tensor:
    """Return updates of three kinds, and one of a kind of its own, far from all."""
    draws = torch.Generator().manual_seed(seed)
    kinds = torch.randn(3, 8, generator=draws).double()
    rows = kinds[torch.randint(3, (18,), generator=draws)]
    rows += 0.5 * torch.randn(18, 8, generator=draws)
    return torch.cat([rows, 40 * torch.randn(1, 8, generator=draws).double()])


@pytest.mark.parametrize("seed", [8, 25])  # of two and three clusters whatever is drawn
def test_agrees_with_the_paper_s_steps_one_by_one(seed):
    updates = crowd(seed)
    kept = slow_rflbat(updates.numpy(), rng(seed))
    assert rflbat(updates, rng(seed)).weights.nonzero().flatten().tolist() == kept
