import numpy as np
import pytest
import torch

from clients.poisons import label_flip, mirrored, pairwise, random_other


def flipped(shard, relabel, fraction, seed=0):
    return label_flip(shard, relabel, fraction, np.random.default_rng(seed)).labels.tolist()


def test_a_pair_calls_the_source_the_target_and_nothing_the_source(shard_of):
    assert flipped(shard_of([2, 7, 1, 2]), pairwise(2, 7), fraction=0.5) == [7, 7, 1, 7]


def test_mirroring_sends_c_to_the_number_of_classes_less_one_less_c(shard_of):
    assert flipped(shard_of([0, 1, 8, 9]), mirrored(10), fraction=1.0) == [9, 8, 1, 0]


def test_an_odd_number_of_classes_has_a_middle_one_that_cannot_be_mirrored(shard_of):
    shard = shard_of([0, 2, 1, 4])
    assert flipped(shard, mirrored(5), fraction=0.75) == [4, 2, 3, 0]
    with pytest.raises(ValueError, match=r"needs 4 examples that the flip relabels .* got 3"):
        flipped(shard, mirrored(5), fraction=1.0)
    all_that_change = label_flip(shard, mirrored(5), None, np.random.default_rng(0))
    assert all_that_change.is_poisoned.tolist() == [True, False, True, True]


def test_random_labels_are_all_the_others_about_equally_often(shard_of):
    labels = flipped(shard_of([1] * 3_000), random_other(4), fraction=1.0)
    counts = np.bincount(labels, minlength=4)
    assert counts[1] == 0
    # 1,000 ± 4 standard deviations of a binomial with p = 1/3.
    assert all(abs(counts[label] - 1_000) < 104 for label in (0, 2, 3))


def test_a_label_is_of_a_class_that_exists(shard_of):
    labels = torch.tensor(flipped(shard_of(list(range(10)) * 20), random_other(10), fraction=1.0))
    assert set(labels.tolist()) <= set(range(10))
    assert (labels != torch.arange(10).repeat(20)).all()
