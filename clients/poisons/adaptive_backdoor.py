"""A3FL's adaptive backdoor: attackers learn the trigger anew from every model that they receive."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clients.poisons.triggers import Trigger
from clients.shard import Shard
from clients.training import LocalTraining, batches, train
from strategies.shapes import Bool, Float, Tensor


def adapted_pattern(
    pattern: Float[Tensor, "c h w"],
    model: nn.Module,
    shard: Shard,
    settings: LocalTraining,
    rng: np.random.Generator,
    mask: Bool[Tensor, "c h w"],
    target: int,
    epochs: int = 200,
    step_size: float = 0.002,
    adapt_every: int = 1,
    adaptation_epochs: int = 5,
    weight: float = 0.01,
) -> Float[Tensor, "c h w"]:
    """Move a trigger by signed gradient steps, so that models call stamped examples the target.

    The loss is that of the received model θ, plus λ cos(θ', θ) times that of a copy θ' trained on
    stamped examples with their true labels, as honest clients might: a trigger that works on both
    is hard to unlearn.

    The release has λ times the mean cosine of convolutions' gradients in place of the paper's
    cosine of parameters, which every model has; its copies train by their own SGD (rate 0.01,
    momentum 0.9, weight decay 5e-4), and its pixels are standardised and kept within ±2.

    Args:
        pattern: What attackers have stamped so far, in [0, 1].
        model: The received one; it is not changed.
        shard: Clean examples of the attacker that learns the trigger for all.
        settings: How honest clients train; the copies train likewise, and batches have the same
            size.
        rng: Orders the examples.
        mask: Which pixels are stamped.
        target: The class that stamped examples shall get.
        epochs: Passes over the examples, with a step for every batch.
        step_size: For pixels in [0, 1]. The release's 0.01 is for standardised pixels: about 0.002
            of CIFAR-10's.
        adapt_every: Epochs from one copy to the next; the first is made after as many.
        adaptation_epochs: Epochs for which a copy trains.
        weight: λ; 0 makes no copies.

    References:
        Zhang et al., A3FL: Adversarially Adaptive Backdoor Attacks to Federated Learning,
        NeurIPS 2023.
    """
    wanted = torch.full_like(shard.labels, target)
    once = replace(settings, local_epochs=1, local_steps=None)
    adapting = replace(once, local_epochs=adaptation_epochs)
    pattern, mask = pattern.to(wanted.device), mask.to(wanted.device)
    model.eval()
    judges = [(1.0, model)]
    for epoch in range(epochs):
        if weight and epoch and epoch % adapt_every == 0:
            copy = deepcopy(model)
            unlearning = shard._replace(inputs=stamped_with(shard.inputs, pattern, mask))
            train(copy, unlearning, adapting, rng)
            judges[1:] = [(weight * _similarity(copy, model), copy.eval())]
        for rows in batches(len(shard.labels), once, rng):
            chosen = torch.from_numpy(rows).to(shard.labels.device)
            pattern = pattern.detach().requires_grad_()
            images = stamped_with(shard.inputs[chosen], pattern, mask)
            losses = [
                share * F.cross_entropy(judge(images), wanted[chosen]) for share, judge in judges
            ]
            (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), pattern)
            # The sign of NaN is 0: a model that diverged teaches nothing.
            pattern = (pattern.detach() - step_size * gradient.sign()).clamp(0, 1)
    return pattern


def stamped_with(
    images: Float[Tensor, "n c h w"], pattern: Float[Tensor, "c h w"], mask: Bool[Tensor, "c h w"]
) -> Float[Tensor, "n c h w"]:
    """Set the masked pixels of images to those of a pattern."""
    return torch.where(mask, pattern, images)


def pixels_set_by(
    trigger: Trigger, shape: tuple[int, ...]
) -> tuple[Float[Tensor, "c h w"], Bool[Tensor, "c h w"]]:
    """Return the values that a trigger sets pixels to, whatever they were, and a mask of these
    pixels."""
    black, white = trigger(torch.stack([torch.zeros(shape), torch.ones(shape)]))
    return black, black == white


def _similarity(one: nn.Module, other: nn.Module) -> float:
    parameters = [torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (one, other)]
    return F.cosine_similarity(*parameters, dim=0).item()
