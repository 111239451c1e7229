"""Shards made once and kept."""

import torch

from clients.shard import Role, Shard
from fl_testbed.engine.shard_cache import ShardCache

BYTES = 10 * (4 * 3 + 8 + 8 + 1)  # of a shard of 10 examples of 3 features


def test_shards_used_last_are_kept_as_far_as_they_fit():
    made: list[tuple[int, bool]] = []

    def make(client: int, clean: bool) -> Shard:
        made.append((client, clean))
        labels = torch.full((10,), client)
        poisoned = torch.full((10,), not clean)
        return Shard(torch.zeros(10, 3), labels, labels, poisoned, Role.POISONED)

    cache = ShardCache(make, torch.device("cpu"), capacity=2 * BYTES)
    for client in (0, 1, 0, 2, 0):  # 2 takes the place of 1
        assert cache.get(client).labels[0] == client
    assert made == [(0, True), (1, True), (2, True)]
    assert cache.get(0, clean=False).is_poisoned.all()  # 2, which was used before 0, goes
    cache.get(0)
    assert made == [(0, True), (1, True), (2, True), (0, False)]
    cache.get(2)
    assert made[-1] == (2, True)


def test_a_shard_larger_than_the_cache_can_still_be_had():
    shard = Shard(
        torch.zeros(10, 3), *(torch.zeros(10, dtype=torch.int64) for _ in range(2)),
        torch.zeros(10, dtype=torch.bool), Role.HONEST_MAJORITY,
    )  # fmt: skip
    cache = ShardCache(lambda client, clean: shard, torch.device("cpu"), capacity=1)
    assert cache.get(5) is shard
