"""Convolutions as products of matrices are convolutions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._python_dispatch import TorchDispatchMode

from clients.convolutions import ConvolutionsAsProducts
from clients.shard import Role, Shard
from clients.training import LocalTraining, train_cohort

N_MODELS, N_IMAGES = 3, 4
LAYERS = {
    "plain": {},
    "padded": {"padding": 2},
    "padded beside": {"padding": (0, 1)},
    "strided": {"stride": (2, 3)},
    "padded and strided": {"stride": 2, "padding": 1},
}
LEFT_TO_TORCH = {
    "dilated": {"dilation": 2},
    "of the same size": {"padding": "same"},
}


class Convolutions(TorchDispatchMode):
    """Counts torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "convolution" in str(func)
        return func(*args, **(kwargs or {}))


def of_all_models(layer: dict, high: int, wide: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return what each model makes of its own images, and gradients of something of it."""
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(N_MODELS, N_IMAGES, 2, 7, 9, generator=rng, dtype=torch.float64)
    weights = torch.rand(N_MODELS, 5, 2, high, wide, generator=rng, dtype=torch.float64)
    biases = torch.rand(N_MODELS, 5, generator=rng, dtype=torch.float64)
    given = [value.requires_grad_() for value in (images, weights, biases)]
    result = vmap(lambda x, w, b: F.conv2d(x, w, b, **layer))(*given)
    asked = torch.rand(result.shape, generator=rng, dtype=torch.float64)
    return result, torch.autograd.grad((result * asked).sum(), given)


@pytest.mark.parametrize(("high", "wide"), [(3, 3), (5, 2), (1, 1)])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_results_and_gradients_are_torch_s(layer, high, wide):
    expected, expected_gradients = of_all_models(layer, high, wide)
    with ConvolutionsAsProducts(), Convolutions() as torchs_own:
        result, gradients = of_all_models(layer, high, wide)
    assert torchs_own.count == 0
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer", LEFT_TO_TORCH.values(), ids=LEFT_TO_TORCH)
def test_what_is_not_plain_is_left_to_torch(layer):
    with ConvolutionsAsProducts(), Convolutions() as torchs_own:
        result, _ = of_all_models(layer, 3, 3)
    assert torchs_own.count
    assert torch.equal(result, of_all_models(layer, 3, 3)[0])


def test_a_cohort_trains_the_same_models_either_way():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 2),
            nn.Flatten(), nn.Linear(4 * 9, 5),
        )  # fmt: skip
    rng = torch.Generator().manual_seed(1)
    shards = [
        Shard(
            torch.rand(n, 1, 8, 8, generator=rng),
            torch.randint(5, (n,), generator=rng),
            torch.zeros(n, dtype=torch.int64),
            torch.zeros(n, dtype=torch.bool),
            Role.HONEST_MAJORITY,
        )
        for n in (7, 12, 3)
    ]

    def trained() -> Tensor:
        rngs = [np.random.default_rng(client) for client in range(len(shards))]
        settings = LocalTraining(lr=0.1, batch_size=5, local_epochs=2)
        return train_cohort(model, model.state_dict(), shards, settings, rngs)[0]

    expected = trained()
    with ConvolutionsAsProducts(), Convolutions() as torchs_own:
        found = trained()
    assert torchs_own.count == 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
