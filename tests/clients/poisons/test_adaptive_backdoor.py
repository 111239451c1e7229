from functools import partial

import numpy as np
import torch
from torch import nn

from clients.poisons import adapted_pattern, adaptive_backdoor, patch, pixels_set_by
from clients.training import LocalTraining

SETTINGS = LocalTraining(lr=0.1, batch_size=4, local_epochs=2, local_steps=1)
GREY = torch.full((1, 2, 2), 0.5)
TOP = torch.tensor([[[True, True], [False, False]]])


def linear(*weights: float) -> nn.Module:
    """Four pixels; the logit of class 1 is their weighted sum, that of class 0 is 0. Where it is
    not set to be tested all is dropped out."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Dropout(1.0))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0] * 4, weights]))
        model[1].bias.zero_()
    return model


def adapted(model: nn.Module, shard, **changes) -> list[float]:
    given = {"epochs": 3, "step_size": 0.1, "adapt_every": 9} | changes
    rng = np.random.default_rng(0)
    found = adapted_pattern(GREY, model, shard, SETTINGS, rng, mask=TOP, target=1, **given)
    assert torch.equal(GREY, torch.full((1, 2, 2), 0.5))
    assert not GREY.requires_grad
    assert not found.requires_grad
    return [round(value, 4) for value in found.flatten().tolist()]


def test_the_masked_pixels_go_where_the_target_s_logit_grows_a_step_for_each_batch(shard_of):
    # Six examples in batches of four: two steps an epoch, six in all, and no further than white.
    shard = shard_of([0, 1, 0, 0, 1, 0], side=2)
    assert adapted(linear(1, -2, 3, -4), shard, step_size=0.05) == [0.8, 0.2, 0.5, 0.5]
    assert adapted(linear(1, -2, 3, -4), shard) == [1.0, 0.0, 0.5, 0.5]


def test_a_copy_that_trained_on_stamped_examples_as_they_are_called_has_its_say(
    shard_of, monkeypatch
):
    shard, seen = shard_of([0, 1, 0, 0], side=2), []

    def train(copy, stamped, settings, rng):
        seen.append((stamped.inputs[:, 0].flatten(1), stamped.labels, settings.local_epochs))
        copy.load_state_dict(linear(3, 2, 0, 0).state_dict())  # likes the second pixel bright

    monkeypatch.setattr(adaptive_backdoor, "train", train)
    model = linear(3, -1, 0, 0)
    assert adapted(model, shard, epochs=2)[:2] == [0.7, 0.3]
    # The copy, much like the model but fond of that pixel, decides from a weight of 2.33 on.
    for weight, second in ((3.0, 0.5), (1.8, 0.3)):
        seen.clear()
        more = {"epochs": 2, "adapt_every": 1, "adaptation_epochs": 7, "weight": weight}
        assert adapted(model, shard, **more)[:2] == [0.7, second]
        ((inputs, labels, epochs),) = seen
        torch.testing.assert_close(inputs[:, :2], torch.tensor([[0.6, 0.4]] * 4))
        assert torch.equal(inputs[:, 2:], shard.inputs[:, 0].flatten(1)[:, 2:])
        assert (labels.tolist(), epochs) == ([0, 1, 0, 0], 7)


def test_each_copy_gives_way_to_the_next_and_without_a_weight_there_is_none(shard_of, monkeypatch):
    fond, made = [2, 0], []

    def train(copy, *_):
        copy.load_state_dict(linear(3, fond[len(made)], 0, 0).state_dict())
        made.append(copy.train())

    monkeypatch.setattr(adaptive_backdoor, "train", train)
    model, shard = linear(3, -1, 0, 0), shard_of([0, 1, 0, 0], side=2)
    given = {"epochs": 5, "adapt_every": 2, "step_size": 0.05}
    # The model alone takes two steps down, the first copy two up, the second none: down once.
    assert adapted(model, shard, **given, weight=9.0)[1] == 0.45
    assert len(made) == 2
    assert adapted(model, shard, **given, weight=0.0)[1] == 0.25
    assert len(made) == 2


def test_a_copy_unlike_the_model_counts_the_other_way(shard_of, monkeypatch):
    def train(copy, stamped, settings, rng):
        copy.load_state_dict(linear(-3, 1, 0, 0).state_dict())  # the cosine is -1

    monkeypatch.setattr(adaptive_backdoor, "train", train)
    more = {"epochs": 2, "adapt_every": 1, "weight": 100.0}
    assert adapted(linear(3, -1, 0, 0), shard_of([0] * 4, side=2), **more)[:2] == [0.7, 0.3]


def test_a_model_that_diverged_teaches_nothing(shard_of):
    assert adapted(linear(torch.nan, 1, 1, 1), shard_of([0] * 4, side=2)) == [0.5] * 4


def test_a_trigger_s_pixels_are_those_that_it_sets_whatever_they_were():
    start, mask = pixels_set_by(partial(patch, size=(1, 2), value=0.25, at=(0, 0)), (1, 2, 2))
    assert torch.equal(mask, TOP)
    assert start[mask].tolist() == [0.25, 0.25]
