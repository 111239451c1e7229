from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clients.poisons.gradient_matching import matching_perturbation

EPSILON, TARGET = 0.1, 2
GENERATOR = torch.Generator().manual_seed(0)
IMAGES, VICTIMS = (torch.rand(n, 1, 4, 4, generator=GENERATOR) for n in (12, 1))
LABELS = torch.full((12,), TARGET)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


def perturbation(model: nn.Module, seed: int = 0, **changes) -> torch.Tensor:
    given = {"epsilon": EPSILON, "steps": 40, "restarts": 1, "step_size": 0.02} | changes
    rng = np.random.default_rng(seed)
    return matching_perturbation(model, IMAGES, LABELS, VICTIMS, TARGET, rng, **given)


def gradient(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    wanted = torch.full((len(images),), TARGET)
    loss = F.cross_entropy(model(images), wanted)
    parts = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([part.flatten() for part in parts])


def similarity(model: nn.Module, delta: torch.Tensor) -> float:
    one, other = gradient(model, IMAGES + delta), gradient(model, VICTIMS)
    return F.cosine_similarity(one, other, dim=0).item()


def test_the_poison_s_gradient_turns_towards_the_victims(model):
    before, after = (
        similarity(model, torch.zeros_like(IMAGES)),
        similarity(model, perturbation(model)),
    )
    assert 1 - after < 0.6 * (1 - before)


def test_one_step_on_the_poison_moves_victims_further_than_one_of_the_same_length_on_clean_images(
    model,
):
    def victims_loss_after_a_step_on(images: torch.Tensor) -> float:
        moved, step = deepcopy(model), gradient(model, images)
        vector = nn.utils.parameters_to_vector(moved.parameters()) - 0.1 * step / step.norm()
        nn.utils.vector_to_parameters(vector, moved.parameters())
        return F.cross_entropy(moved(VICTIMS), torch.tensor([TARGET])).item()

    clean = victims_loss_after_a_step_on(IMAGES)
    assert victims_loss_after_a_step_on(IMAGES + perturbation(model)) < clean


def test_it_stays_in_the_ball_and_in_the_image(model):
    delta = perturbation(model, epsilon=0.3)
    assert delta.abs().max() <= 0.3 + 1e-6
    assert (IMAGES + delta).min() >= -1e-6
    assert (IMAGES + delta).max() <= 1 + 1e-6


def test_the_best_of_several_starts_is_kept(model):
    best = [similarity(model, perturbation(model, restarts=n, steps=10)) for n in (1, 2, 3)]
    assert best == sorted(best)  # the first of n starts are those of fewer
    assert best[2] > best[0]


def test_the_model_drops_nothing_out(model):
    forgetful = nn.Sequential(nn.Dropout(1.0), model)  # in training mode it would see black
    assert torch.equal(perturbation(forgetful, steps=4), perturbation(model, steps=4))


@pytest.mark.parametrize(
    ("steps", "furthest"),
    [
        (1, 1.0),
        # Tenfold shorter after 3/8 of the steps, again after 5/8 and after 7/8.
        (8, 3 + 2 * 0.1 + 2 * 0.01 + 0.001),
    ],
)
def test_steps_are_as_long_as_asked_for_whatever_the_gradient_and_get_shorter(
    model, steps, furthest
):
    size = 1e-4
    noise = np.random.default_rng(0).standard_normal(tuple(IMAGES.shape), dtype=np.float32)
    start = torch.from_numpy(10 * noise)  # so far out that most pixels end up black or white
    start = start.clamp(-IMAGES, 1 - IMAGES)
    moves = perturbation(model, epsilon=10.0, steps=steps, step_size=size) - start
    # A gradient of ±1 makes a step of Adam's exactly as long as its rate, or shorter on a turn.
    assert moves.abs().max().item() == pytest.approx(furthest * size, rel=1e-2)
