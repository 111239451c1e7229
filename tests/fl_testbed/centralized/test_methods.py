"""Each method's rule on cases small enough to check by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fl_testbed.centralized.activation_clustering import smaller_activation_cluster
from fl_testbed.centralized.balancing import balanced
from fl_testbed.centralized.epic import gradient_proxies, isolated, medoids
from fl_testbed.centralized.george import (
    clusters_within_classes,
    hardness,
    marked_within_classes,
    smaller_clusters,
)
from fl_testbed.centralized.group_dro import GroupDRO
from fl_testbed.centralized.jtt import error_set, upweighted
from fl_testbed.centralized.loss_filter import largest
from fl_testbed.centralized.plan import everything
from fl_testbed.centralized.separation import separation
from fl_testbed.centralized.spectral_signatures import spectral_scores
from fl_testbed.centralized.spectre import quantum_entropy_scores, spectre_scores
from fl_testbed.centralized.training import features_of
from fl_testbed.data import DataError


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def marks(text: str) -> torch.Tensor:
    return torch.tensor([c == "x" for c in text])


ALL = torch.ones(6, dtype=torch.bool)


class TestJTT:
    def test_the_error_set_is_what_falls_below_the_threshold(self):
        assert error_set(torch.tensor([0.49, 0.5, 0.9, 0.1])).tolist() == [True, False, False, True]

    def test_an_example_of_the_error_set_counts_one_more_than_the_factor(self):
        assert upweighted(marks("x."), 50).tolist() == [51, 1]


class TestGroupDRO:
    def test_the_mixture_follows_the_groups_losses(self):
        # From (½, ½) with losses (0, ln 3) and η = 1 to (¼, ¾): the loss is ¾ ln 3.
        dro = GroupDRO(torch.tensor([0, 0, 1]), step_size=1.0)
        loss = dro.loss(torch.tensor([0.0, 0.0, math.log(3)]), torch.tensor([0, 1, 2]))
        assert loss.item() == pytest.approx(0.75 * math.log(3))
        assert dro.mean_weights().tolist() == pytest.approx([0.25, 0.75])

    def test_the_adjustment_counts_small_groups_as_harder(self):
        dro = GroupDRO(torch.tensor([0, 0, 0, 0, 1]), step_size=0.0, adjustment=2.0)
        loss = dro.loss(torch.tensor([1.0]), torch.tensor([4]))
        # The group that is not in the batch has its adjustment alone: 2/√4; the other 1 + 2/√1.
        assert loss.item() == pytest.approx((1 + 3) / 2)

    def test_a_training_begins_anew_and_gives_a_removed_group_no_weight(self):
        dro = GroupDRO(torch.tensor([0, 1, 2]))
        dro.loss(torch.tensor([9.0]), torch.tensor([1]))
        dro.start(torch.tensor([1.0, 0.0, 1.0]))
        assert dro.mean_weights().tolist() == pytest.approx([0.5, 0, 0.5])
        assert dro.n_present == 2


class TestPlan:
    def test_equal_weights_are_a_permutation_of_what_is_left(self):
        plan = everything(5).without(marks(".x..."))
        assert sorted(plan.epoch(rng()).tolist()) == [0, 2, 3, 4]

    def test_nothing_left_is_told_before_it_is_drawn_from(self):
        plan = everything(2).without(marks("xx"))
        with pytest.raises(DataError, match="the stages have removed every example"):
            plan.epoch(rng())

    def test_other_weights_are_drawn_in_proportion_and_as_often(self):
        plan = everything(4).times(torch.tensor([1.0, 1, 1, 97])).without(marks("x..."))
        drawn = np.concatenate([plan.epoch(rng()) for _ in range(1)])
        assert len(drawn) == 3
        assert plan.chances().tolist() == pytest.approx([0, 1 / 99, 1 / 99, 97 / 99])

    def test_groups_of_a_dro_are_equally_likely_whatever_their_size(self):
        dro = GroupDRO(torch.tensor([0, 0, 0, 1]))
        plan = everything(4)._replace(dro=dro)
        assert plan.chances().tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
        assert plan.shares().tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])


@pytest.mark.parametrize("weights", [[1.0, 1, 1, 0, 1], [51.0, 1, 1, 0, 1], [0.0, 0, 0, 1, 1]])
def test_balanced_parts_have_the_same_sum_of_the_weights_that_a_lift_or_a_filter_left(weights):
    parts, before = torch.tensor([0, 0, 0, 1, 1]), torch.tensor(weights).double()
    after = before * balanced(parts, before)
    assert after[3:].sum().item() == pytest.approx(1)
    assert after[:3].sum().item() == pytest.approx(1 if before[:3].any() else 0)


class TestGeorge:
    def test_hardness_is_the_projection_on_the_difference_of_two_classes_weights(self):
        weights = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
        features = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        found = hardness(features, weights, torch.tensor([0, 1]))
        assert found.squeeze(1).tolist() == pytest.approx([0.6, 0.8])

    def test_well_separated_clusters_of_each_class_are_found(self):
        centres = [0.0, 10.0, 30.0, 40.0, 60.0]
        labels = torch.tensor([0, 0, 1, 1, 1]).repeat_interleave(20)
        noise = torch.from_numpy(rng().normal(size=100))
        points = torch.tensor(centres).repeat_interleave(20) + noise
        kept = torch.ones(100, dtype=torch.bool)
        found = clusters_within_classes(points[:, None], labels, kept, 5, rng())
        parts = found.reshape(5, 20)
        assert (parts == parts[:, :1]).all()
        assert len(found.unique()) == 5

    def test_who_is_gone_has_no_cluster_of_its_own(self):
        points = torch.tensor([0.0, 30.0, 60.0]).repeat_interleave(20)
        points += torch.from_numpy(rng().normal(size=60))
        kept = torch.arange(60) < 40
        labels = torch.zeros(60, dtype=torch.int64)
        found = clusters_within_classes(points[:, None], labels, kept, 3, rng())
        assert len(found.unique()) == 2

    def test_small_clusters_are_those_below_their_class_s_mean(self):
        clusters = torch.tensor([0, 0, 0, 1, 2, 2, 2, 3, 3, 3, 3])
        labels = torch.tensor([0] * 4 + [1] * 7)
        found = smaller_clusters(clusters, labels, torch.ones(11, dtype=torch.bool))
        assert found.tolist() == marks("...xxxx....").tolist()

    def test_a_perfect_identifier_sets_marked_examples_of_each_class_apart(self):
        found = marked_within_classes(marks("x..x"), torch.tensor([0, 0, 1, 1]))
        assert found.tolist() == [1, 0, 2, 3]


class TestLossFilter:
    confidence = torch.tensor([0.9, 0.1, 0.2, 0.8, 0.05, 0.7])

    def test_it_marks_the_least_confident_share_of_what_is_left(self):
        kept = marks("xxxx.x")
        found = largest(-self.confidence, kept, 0.35)  # 1.75 of 5; the lowest is gone already
        assert found.tolist() == marks(".xx...").tolist()

    def test_by_class_every_class_loses_its_share(self):
        labels = torch.tensor([0, 1, 1, 0, 1, 0])
        found = largest(-self.confidence, ALL, 1 / 3, labels)
        assert found.tolist() == marks("....xx").tolist()

    def test_of_equals_the_first_go(self):
        assert largest(torch.ones(6), ALL, 0.5).tolist() == marks("xxx...").tolist()


class TestSpectralSignatures:
    def test_the_score_is_the_squared_distance_along_the_main_axis_of_the_class(self):
        # Class 0 varies along the first feature about a mean of 2, class 1 along the second.
        features = torch.tensor([[0.0, 1], [2, 1], [4, 1], [7, 0], [7, 2], [9, 9]])
        labels = torch.tensor([0, 0, 0, 1, 1, 1])
        scores = spectral_scores(features, labels, marks("xxxxx."))
        assert scores.tolist() == pytest.approx([4, 0, 4, 1, 1, 0])


class TestSpectre:
    def test_at_alpha_0_the_score_is_the_squared_length_over_the_dimension(self):
        points = torch.from_numpy(rng().normal(size=(50, 3)))
        expected = points.square().sum(dim=1) / 3
        torch.testing.assert_close(quantum_entropy_scores(points, 0.0), expected)

    def test_a_large_alpha_leaves_the_top_axis(self):
        points = torch.from_numpy(rng().normal(size=(500, 3))) * torch.tensor([1.0, 5.0, 1.0])
        scores = quantum_entropy_scores(points, 500.0)
        torch.testing.assert_close(scores, points[:, 1].square(), rtol=0.1, atol=0.5)

    def test_whitening_shows_what_hides_below_the_class_s_own_spread(self):
        # The poison stands out along an axis of little spread; the main axis is another.
        points = torch.from_numpy(rng().normal(size=(300, 2))) * torch.tensor([100.0, 1.0])
        points[:9, 1] += 12
        labels, kept = torch.zeros(300, dtype=torch.int64), torch.ones(300, dtype=torch.bool)
        plain = spectral_scores(points, labels, kept)
        whitened = spectre_scores(points, labels, kept, 0.03, 2, 4.0, rng())
        assert set(whitened.topk(9).indices.tolist()) == set(range(9))
        assert len(set(plain.topk(9).indices.tolist()) & set(range(9))) < 5

    def test_it_looks_along_the_main_axes_alone(self):
        points = torch.cartesian_prod(torch.linspace(-9, 9, 10), torch.tensor([-1.0, 1.0]))
        labels, kept = torch.zeros(20, dtype=torch.int64), torch.ones(20, dtype=torch.bool)
        found = spectre_scores(points, labels, kept, 0.1, 1, 4.0, rng())
        along = spectre_scores(points[:, :1], labels, kept, 0.1, 1, 4.0, rng())
        torch.testing.assert_close(found, along)

    def test_in_a_class_of_equal_features_nobody_stands_out(self):
        labels, kept = torch.zeros(30, dtype=torch.int64), torch.ones(30, dtype=torch.bool)
        scores = spectre_scores(torch.zeros(30, 4), labels, kept, 0.1, 2, 4.0, rng())
        assert scores.tolist() == [0.0] * 30


def test_features_of_a_model_that_diverged_are_refused():
    first = nn.Linear(2, 3)
    nn.init.constant_(first.weight, torch.inf)
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(DataError, match="diverged, so its features are useless: lower training"):
        features_of(model, torch.ones(4, 2))


class TestActivationClustering:
    def points(self, n_odd: int) -> torch.Tensor:
        features = torch.from_numpy(rng().normal(size=(100, 20)))
        features[:n_odd] += 10
        return features

    def marked(self, n_odd: int) -> torch.Tensor:
        labels, kept = torch.zeros(100, dtype=torch.int64), torch.ones(100, dtype=torch.bool)
        found = smaller_activation_cluster(self.points(n_odd), labels, kept, 0.35, 10, rng())
        return found.nonzero().squeeze(1)

    def test_the_smaller_of_two_clusters_is_marked(self):
        assert self.marked(20).tolist() == list(range(20))

    def test_unless_it_is_too_large_to_be_a_poison(self):
        assert self.marked(40).tolist() == []

    def test_in_a_class_of_equal_features_there_are_no_two(self):
        labels, kept = torch.zeros(30, dtype=torch.int64), torch.ones(30, dtype=torch.bool)
        found = smaller_activation_cluster(torch.ones(30, 20), labels, kept, 0.35, 10, rng())
        assert not found.any()


class TestEpic:
    def test_a_proxy_is_the_gradient_of_the_loss_in_the_logits(self):
        logits = torch.randn(5, 3, requires_grad=True)
        labels = torch.tensor([0, 1, 2, 0, 1])
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        (expected,) = torch.autograd.grad(loss, logits)
        torch.testing.assert_close(gradient_proxies(logits.detach(), labels), expected)

    def test_medoids_are_those_of_plain_greedy_facility_location(self):
        points = torch.from_numpy(rng().normal(size=(60, 2))).float()
        distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        similarities = distances.max() - distances
        chosen: list[int] = []
        reached = torch.zeros(60)
        for _ in range(12):
            gains = (similarities - reached).clamp_min(0).sum(dim=1)
            gains[chosen] = -1
            chosen.append(int(gains.argmax()))
            reached = torch.maximum(reached, similarities[chosen[-1]])
        assert medoids(points, 12).tolist() == chosen

    def test_a_point_by_itself_is_marked_and_a_crowd_is_not(self):
        proxies = torch.tensor([[0.0], [0.01], [0.02], [5.0], [0.0], [0.01]])
        labels = torch.tensor([0, 0, 0, 0, 1, 1])
        found = isolated(proxies, labels, ALL, share=0.5)
        assert found.tolist() == marks("...x..").tolist()
        pair = torch.tensor([[0.0], [0.01], [0.02], [5.0], [5.01], [0.0]])
        found = isolated(pair, torch.zeros(6, dtype=torch.int64), ALL, share=0.33, max_cluster=2)
        assert found.tolist() == marks("...xx.").tolist()

    def test_who_is_gone_is_neither_medoid_nor_neighbour(self):
        proxies = torch.tensor([[0.0], [0.01], [0.02], [5.0], [5.0], [9.0]])
        labels = torch.zeros(6, dtype=torch.int64)
        found = isolated(proxies, labels, marks("xxxx.."), share=0.5)
        assert found.tolist() == marks("...x..").tolist()


class TestSeparation:
    def test_poisons_above_the_minority_are_told_apart(self):
        found = separation(np.array([3.0, 4]), np.array([1.0, 2]))
        assert found == (1.0, 0.0)

    def test_the_same_scores_cannot_be(self):
        scores = np.array([1.0, 2, 3, 4])
        assert separation(scores, scores) == (0.5, 1.0)

    def test_poisons_below_the_minority_are_worse_than_none(self):
        assert separation(np.array([1.0]), np.array([2.0, 3])) == (0.0, 1.0)

    def test_half_of_them_above(self):
        # Flagging what is above 2 catches one poison of two, and no minority example.
        assert separation(np.array([3.0, 0]), np.array([1.0, 2]))[1] == pytest.approx(0.5)

    def test_without_poisons_there_is_nothing_to_tell(self):
        assert math.isnan(separation(np.array([]), np.array([1.0])).auc)

    def test_scores_that_are_no_numbers_tell_nothing(self):
        # Some outputs of a model overflow before others do.
        poisons, minority = np.array([0.9, 0.8]), np.array([0.1, math.nan])
        assert all(math.isnan(figure) for figure in separation(poisons, minority))

    def test_no_monotone_weight_lifts_poisons_over_the_minority_by_more_than_it_says(self):
        numbers = rng()
        for _ in range(50):
            scores = [numbers.integers(0, 8, size=n).astype(float) for n in (7, 9)]
            heights = np.sort(numbers.random(8))  # a weight for each score, growing with it
            poisons, minority = (heights[values.astype(int)].mean() for values in scores)
            most = 1 - separation(*scores).threshold_error
            assert poisons - minority <= (heights[-1] - heights[0]) * most + 1e-12
