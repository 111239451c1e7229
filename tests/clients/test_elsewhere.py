"""Where tensors are while clients train on another device than the CPU, told without one.

Torch's ``meta`` tensors have a shape and a device and hold no numbers. They refuse operations on
tensors of two devices, and whatever would need a number on the host.
"""

import numpy as np
import pytest
import torch
from torch import nn

from clients.attacks import ProjectedDescent
from clients.shard import Role, Shard
from clients.training import LocalTraining, train_cohort

ELSEWHERE = torch.device("meta")
SETTINGS = {
    "sgd": LocalTraining(lr=0.1, batch_size=5, local_epochs=2, momentum=0.9, weight_decay=0.1),
    "adam": LocalTraining(lr=0.1, batch_size=5, local_epochs=2, optimizer="adam"),
}


def shard(n_examples: int) -> Shard:
    there = {"device": ELSEWHERE}
    return Shard(
        inputs=torch.rand(n_examples, 1, 8, 8, **there),
        labels=torch.zeros(n_examples, dtype=torch.int64, **there),
        groups=torch.zeros(n_examples, dtype=torch.int64, **there),
        is_poisoned=torch.zeros(n_examples, dtype=torch.bool, **there),
        role=Role.HONEST_MAJORITY,
    )


def model() -> nn.Module:
    with ELSEWHERE:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3)
        )


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_cohort_trains_where_its_data_are_and_the_host_never_waits(settings: LocalTraining):
    shards = [shard(size) for size in (7, 23, 1, 23)]
    rngs = [np.random.default_rng(client) for client in range(4)]
    rows, losses = train_cohort(model(), model().state_dict(), shards, settings, rngs)
    assert rows.device == losses.device == ELSEWHERE
    assert rows.shape == (4, sum(p.numel() for p in model().parameters()))


def test_this_would_show_a_number_that_the_host_waits_for():
    received = model().state_dict()
    hook = ProjectedDescent(radius=1.0).hook(received, None, dict)  # looks at its own length
    rngs = [np.random.default_rng(0)]
    with pytest.raises(RuntimeError, match="no data"):
        train_cohort(model(), received, [shard(7)], SETTINGS["sgd"], rngs, [hook])


def test_this_would_show_a_tensor_that_is_elsewhere():
    received = model().state_dict() | {"4.bias": torch.zeros(3)}
    with pytest.raises(RuntimeError, match="device"):
        train_cohort(model(), received, [shard(7)], SETTINGS["sgd"], [np.random.default_rng(0)])
