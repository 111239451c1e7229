import numpy as np
import pytest
import torch
from torch import nn

from clients.poisons import (
    find_subpopulations,
    pick_by_size,
    subpopulation_attack,
    wrong_class,
)

# Three groups on a line in 4 dimensions, of 5, 3 and 2 points, all of them far from the origin.
CORNER = torch.tensor([1e3, 0.0, 0.0, 1.0])
LINE = (0, 1, 2, 1, 1, 50, 51, 52, -40, -41)
POINTS = CORNER + torch.tensor([[x, 2.0 * x, 0.0, 0.0] for x in LINE])
SIZES = [5, 3, 2]


def found(seed: int = 0):
    return find_subpopulations(POINTS, 3, np.random.default_rng(seed), n_axes=1)


class TestClusters:
    @pytest.mark.parametrize("seed", range(5))
    def test_points_that_lie_together_are_one(self, seed):
        clusters = found(seed).of(POINTS).split(SIZES)
        assert all(len(part.unique()) == 1 for part in clusters)
        assert len({int(part[0]) for part in clusters}) == 3

    def test_a_new_point_belongs_to_the_nearest(self):
        clusters = found()
        near = clusters.of(CORNER + torch.tensor([[45.0, 95.0, 0.0, 0.0], [-9.0, -18.0, 0.0, 0.0]]))
        own = clusters.of(POINTS)
        assert near.tolist() == [int(own[5]), int(own[0])]

    def test_centres_are_the_means_of_their_points(self):
        clusters = found()
        own = clusters.of(POINTS)
        projected = (POINTS - clusters.mean) @ clusters.axes
        for cluster in range(3):
            expected = projected[own == cluster].mean(dim=0)
            torch.testing.assert_close(clusters.centres[cluster], expected)

    def test_the_axis_is_the_direction_of_most_spread(self):
        axis = found().axes[:, 0].abs()
        torch.testing.assert_close(axis, torch.tensor([1.0, 2.0, 0.0, 0.0]) / 5**0.5)

    def test_the_seed_repeats_them(self):
        assert torch.equal(found(3).centres, found(3).centres)

    def test_points_that_are_all_alike_do_not_stop_it(self):
        same = torch.ones(4, 2)
        assert find_subpopulations(same, 3, np.random.default_rng(0)).of(same).unique().numel() == 1

    def test_more_clusters_than_points_are_refused(self):
        with pytest.raises(
            ValueError, match=r"11 clusters need at least as many examples.* have 10"
        ):
            find_subpopulations(POINTS, 11, np.random.default_rng(0))


@pytest.mark.parametrize(("size", "cluster"), [("largest", 4), ("median", 1), ("smallest", 6)])
def test_a_cluster_is_picked_by_its_size(size, cluster):
    # Sizes: 4 has three members, 1 has two, 6 one; 0, 2, 3 and 5 have none and do not count.
    assert pick_by_size(torch.tensor([4, 1, 6, 4, 1, 4]), size) == cluster


@pytest.mark.parametrize(("choice", "label"), [("least_likely", 2), ("runner_up", 1)])
def test_the_wrong_class_is_by_the_probability_over_all_members(choice, label):
    # Of the two members: (.8, .1, .1) and (.01, .69, .3). Their product is least for class 0.
    model = nn.Linear(2, 3, bias=False)
    model.weight.data = torch.tensor([[0.8, 0.01], [0.1, 0.69], [0.1, 0.3]]).log()
    assert wrong_class(model, torch.eye(2), choice) == label


class TestAttack:
    def test_members_take_the_places_of_others_under_the_target_s_label(self, shard_of):
        clean = shard_of([1, 2, 3, 4, 5, 6] * 3)
        members = torch.tensor([0.9, 0.95]).reshape(2, 1, 1, 1)
        result = subpopulation_attack(clean, members, 7, 0.5, np.random.default_rng(0))
        marked = result.is_poisoned
        assert int(marked.sum()) == 9
        assert (result.labels[marked] == 7).all()
        assert set(result.inputs[marked].flatten().tolist()) == set(members.flatten().tolist())

    def test_no_members_are_refused_unless_none_are_needed(self, shard_of):
        clean, nobody = shard_of([1, 2]), torch.empty(0, 1, 1, 1)
        with pytest.raises(ValueError, match=r"no example of the subpopulation .* class 7"):
            subpopulation_attack(clean, nobody, 7, 0.5, np.random.default_rng(0))
        untouched = subpopulation_attack(clean, nobody, 7, 0.0, np.random.default_rng(0))
        assert not untouched.is_poisoned.any()
