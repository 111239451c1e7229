"""What is true of every poison, whatever it is after."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from clients.poisons import (
    Trigger,
    adapted_pattern,
    clean_label_backdoor,
    dirty_label_backdoor,
    distributed_backdoor,
    edge_case_backdoor,
    gradient_matching,
    interpolated,
    label_flip,
    mirrored,
    pairwise,
    patch,
    pixels_set_by,
    random_other,
    stamped_with,
    subpopulation_attack,
)
from clients.shard import Shard
from clients.training import LocalTraining

LABELS = [0, 3, 3, 1, 3, 0, 2, 3, 1, 3, 0, 0, 0, 3, 0, 3]
FRACTION, COUNT = 0.25, 4
stamp = partial(patch, size=1)


def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.ReLU(), nn.Linear(6, 4))


def learnt_stamp(shard: Shard, rng: np.random.Generator) -> Trigger:
    start, mask = pixels_set_by(stamp, (1, 3, 3))
    how = {"mask": mask, "target": 0, "epochs": 2, "step_size": 0.1}
    settings = LocalTraining(lr=0.1, batch_size=4)
    pattern = adapted_pattern(start, model(), shard, settings, rng, **how)
    return partial(stamped_with, pattern=pattern, mask=mask)


Poison = Callable[[Shard, np.random.Generator], Shard]
POISONS: dict[str, Poison] = {
    "dirty label": lambda shard, rng: dirty_label_backdoor(shard, stamp, 0, FRACTION, rng, 3),
    "adaptive": lambda shard, rng: dirty_label_backdoor(
        shard, learnt_stamp(shard, rng), 0, FRACTION, rng, 3
    ),
    "distributed": lambda shard, rng: distributed_backdoor(shard, stamp, 2, 1, 0, FRACTION, rng, 3),
    "clean label": lambda shard, rng: clean_label_backdoor(shard, stamp, 0, FRACTION, rng),
    "clean label, mixed": lambda shard, rng: clean_label_backdoor(
        shard,
        stamp,
        0,
        FRACTION,
        rng,
        lambda images, labels, rng: interpolated(images, torch.ones(2, 1, 3, 3), rng, 0.3),
    ),
    "edge case": lambda shard, rng: edge_case_backdoor(
        shard, lambda images: 1 - images, 1, 3, 0, FRACTION, rng
    ),
    "pair": lambda shard, rng: label_flip(shard, pairwise(3, 0), FRACTION, rng),
    "mirrored": lambda shard, rng: label_flip(shard, mirrored(4), FRACTION, rng),
    "random": lambda shard, rng: label_flip(shard, random_other(4), FRACTION, rng),
    "subpopulation": lambda shard, rng: subpopulation_attack(
        shard, shard.inputs[shard.labels == 3], 0, FRACTION, rng
    ),
    "matching": lambda shard, rng: gradient_matching(
        shard, model(), torch.rand(2, 1, 3, 3), 0, FRACTION, rng, steps=2, restarts=1
    ),
}
LABEL_KEPT = {"clean label", "clean label, mixed", "matching"}
IMAGE_KEPT = {"pair", "mirrored", "random"}

every_poison = pytest.mark.parametrize("name", POISONS)


def poisoned(name: str, shard: Shard, seed: int = 0) -> Shard:
    torch.manual_seed(0)  # for the victims alone
    return POISONS[name](shard, np.random.default_rng(seed))


@every_poison
def test_only_the_share_that_it_marks_changes(name, shard_of, only_marked_changed):
    clean = shard_of(LABELS, side=3)
    result = poisoned(name, clean)
    assert int(result.is_poisoned.sum()) == COUNT
    only_marked_changed(clean, result)
    marked = result.is_poisoned
    changed = (result.inputs != clean.inputs).flatten(1).any(dim=1)
    relabelled = result.labels != clean.labels
    assert not relabelled.any() if name in LABEL_KEPT else relabelled[marked].any()
    assert not changed.any() if name in IMAGE_KEPT else changed[marked].all()


@every_poison
def test_the_clean_shard_is_left_alone(name, shard_of):
    clean, twin = shard_of(LABELS, side=3), shard_of(LABELS, side=3)
    poisoned(name, clean)
    assert all(torch.equal(one, other) for one, other in zip(clean[:4], twin[:4], strict=True))


@every_poison
def test_the_seed_repeats_it_and_another_does_not(name, shard_of):
    clean = shard_of(LABELS, side=3)
    first, again, other = (poisoned(name, clean, seed) for seed in (4, 4, 5))
    for one, two in zip(first[:4], again[:4], strict=True):
        assert torch.equal(one, two)
    assert not all(torch.equal(one, two) for one, two in zip(first[:4], other[:4], strict=True))


@every_poison
def test_images_stay_in_range(name, shard_of):
    result = poisoned(name, shard_of(LABELS, side=3))
    assert result.inputs.min() >= 0
    assert result.inputs.max() <= 1


@pytest.mark.parametrize(
    ("name", "right", "spared"),
    [
        ("dirty label", 3, 1),
        ("distributed", 3, 1),
        ("edge case", 3, 1),
        ("pair", 3, 1),
        ("clean label", 0, 1),
        ("matching", 0, 1),
    ],
)
def test_too_few_examples_of_the_right_kind_are_refused(name, right, spared, shard_of):
    with pytest.raises(ValueError, match=r"the poison needs 4 examples .* of 16, got 3: lower"):
        poisoned(name, shard_of([right] * 3 + [spared] * 13, side=3))
