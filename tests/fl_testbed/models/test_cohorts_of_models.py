"""A cohort trains as its clients would one by one, for networks with convolutions too."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from clients.shard import Role, Shard
from clients.training import LocalTraining, train, train_cohort
from fl_testbed.models import cnn, lenet, resnet18

SHAPE, N_CLASSES = (1, 8, 8), 3
MODELS = {
    "lenet": partial(lenet, SHAPE, N_CLASSES),
    "cnn": partial(cnn, SHAPE, N_CLASSES, [3, 4], 6),
    "resnet-18 with GroupNorm": partial(resnet18, SHAPE, N_CLASSES, 8),
}
OPTIMIZERS = {
    "sgd": LocalTraining(lr=0.05, batch_size=5, local_epochs=3),
    "momentum": LocalTraining(lr=0.05, batch_size=5, local_epochs=3, momentum=0.9),
    "momentum and decay": LocalTraining(
        lr=0.05, batch_size=5, local_epochs=3, momentum=0.9, weight_decay=0.1
    ),
    "adam": LocalTraining(lr=0.01, batch_size=5, local_epochs=3, optimizer="adam"),
}
RAGGED = (7, 12, 10, 1)  # with batches of 5: ends mid-batch, on a batch, in the first batch

every_model = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
every_optimizer = pytest.mark.parametrize("settings", OPTIMIZERS.values(), ids=OPTIMIZERS)


def built(build: partial[nn.Module], dtype: torch.dtype) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().to(dtype)


def shards(dtype: torch.dtype) -> list[Shard]:
    rng = torch.Generator().manual_seed(1)
    return [
        Shard(
            inputs=torch.rand(size, *SHAPE, generator=rng, dtype=torch.float64).to(dtype),
            labels=torch.randint(N_CLASSES, (size,), generator=rng),
            groups=torch.zeros(size, dtype=torch.int64),
            is_poisoned=torch.zeros(size, dtype=torch.bool),
            role=Role.HONEST_MAJORITY,
        )
        for size in RAGGED
    ]


def flat(state: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.flatten() for value in state.values()])


def trained(model: nn.Module, settings: LocalTraining, dtype: torch.dtype):
    """Return every client's parameters: trained in a cohort, and one by one."""
    held, start = shards(dtype), flat(model.state_dict())
    rngs = [np.random.default_rng(client) for client in range(len(held))]
    together, _ = train_cohort(model, model.state_dict(), held, settings, rngs)
    alone = []
    for client, own in enumerate(held):
        local = copy.deepcopy(model)
        train(local, own, settings, np.random.default_rng(client))
        alone.append(flat(local.state_dict()))
    assert not torch.equal(together[0], start)
    return together, torch.stack(alone)


@every_model
@every_optimizer
def test_three_epochs_in_float64_agree_within_1e_10(build, settings):
    together, alone = trained(built(build, torch.float64), settings, torch.float64)
    assert (together - alone).abs().max() < 1e-10


@every_model
@every_optimizer
def test_one_step_in_float32_agrees_within_1e_6(build, settings):
    one_step = LocalTraining(**{**vars(settings), "local_epochs": 1, "batch_size": 12})
    model = built(build, torch.float32)
    together, alone = trained(model, one_step, torch.float32)
    differences = (together - alone).abs()
    if settings.optimizer == "adam":
        # Its first step is lr g / (|g| + 1e-8): where g is rounding, so is the sign of the step.
        descent = LocalTraining(lr=1.0, batch_size=12)
        gradients = flat(model.state_dict()) - trained(model, descent, torch.float32)[1]
        assert (gradients.abs() > 1e-5).float().mean() > 0.25  # dead units have none at all
        differences = differences[gradients.abs() > 1e-5]
    assert differences.max() < 1e-6
