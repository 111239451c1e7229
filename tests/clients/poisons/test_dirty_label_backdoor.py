import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clients.poisons import dirty_label_backdoor, is_source
from clients.shard import Role, Shard

LABELS = torch.tensor([0, 3, 3, 1, 3, 0, 2, 3, 1, 3])


def shard_of(labels: torch.Tensor) -> Shard:
    n = len(labels)
    return Shard(
        inputs=torch.arange(n).float().reshape(n, 1, 1, 1) / 100,
        labels=labels,
        groups=torch.arange(n) % 2,
        is_poisoned=torch.zeros(n, dtype=torch.bool),
        role=Role.POISONED,
    )


def white(images: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(images)


def poisoned(shard: Shard, fraction: float, source: int | None = 3, seed: int = 0) -> Shard:
    return dirty_label_backdoor(
        shard, white, target=0, fraction=fraction, rng=np.random.default_rng(seed), source=source
    )


@given(seed=st.integers(0, 1_000), fraction=st.sampled_from([0.0, 0.1, 0.3, 0.5]))
def test_it_changes_image_and_label_of_the_chosen_and_nothing_else(seed, fraction):
    clean = shard_of(LABELS)
    result = poisoned(clean, fraction, seed=seed)
    chosen = result.is_poisoned
    assert int(chosen.sum()) == round(fraction * 10)
    assert (clean.labels[chosen] == 3).all()
    assert (result.labels[chosen] == 0).all()
    assert (result.inputs[chosen] == 1).all()
    assert torch.equal(result.labels[~chosen], clean.labels[~chosen])
    assert torch.equal(result.inputs[~chosen], clean.inputs[~chosen])
    assert torch.equal(result.groups, clean.groups)
    assert result.role == clean.role


def test_the_share_is_of_the_whole_shard_and_not_of_the_source_class():
    # Half of 10 examples are all 5 of class 3; half of class 3 would be 2.
    assert poisoned(shard_of(LABELS), 0.5).is_poisoned.tolist() == (LABELS == 3).tolist()


def test_without_a_source_every_class_but_the_target_is_poisoned():
    result = poisoned(shard_of(LABELS), 0.8, source=None)
    assert result.is_poisoned.tolist() == (LABELS != 0).tolist()
    assert (result.labels == 0).all()


@pytest.mark.parametrize(
    ("source", "fraction", "text"),
    [
        (3, 0.6, "needs 6 examples of class 3 in a shard of 10, got 5: lower poison.fraction"),
        (None, 0.9, "needs 9 examples of classes other than 0 in a shard of 10, got 8"),
    ],
)
def test_too_few_source_examples_are_refused(source, fraction, text):
    with pytest.raises(ValueError, match=text):
        poisoned(shard_of(LABELS), fraction, source=source)


def test_sources_are_one_class_or_all_but_the_target():
    labels = torch.tensor([0, 1, 2, 1])
    assert is_source(labels, source=1, target=0).tolist() == [False, True, False, True]
    assert is_source(labels, source=None, target=1).tolist() == [True, False, True, False]
