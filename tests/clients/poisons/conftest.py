from collections.abc import Callable

import pytest
import torch

from clients.shard import Role, Shard


def labelled_shard(labels: list[int], side: int = 1, seed: int = 0) -> Shard:
    """Grey images, no two alike, none black or white, of an attacker."""
    n = len(labels)
    pixels = torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed))
    return Shard(
        inputs=0.25 + pixels / 2,
        labels=torch.tensor(labels),
        groups=torch.arange(n) % 2,
        is_poisoned=torch.zeros(n, dtype=torch.bool),
        role=Role.POISONED,
    )


@pytest.fixture
def shard_of() -> Callable[..., Shard]:
    return labelled_shard


def assert_only_marked_examples_changed(before: Shard, after: Shard) -> None:
    kept = ~after.is_poisoned
    for name in ("inputs", "labels", "groups"):
        assert torch.equal(getattr(after, name)[kept], getattr(before, name)[kept]), name
    assert after.role == before.role
    assert [len(column) for column in after[:4]] == [len(before.labels)] * 4


@pytest.fixture
def only_marked_changed() -> Callable[[Shard, Shard], None]:
    return assert_only_marked_examples_changed
