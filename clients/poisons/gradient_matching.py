"""Gradient matching ("Witches' Brew"): training on the poison moves the model as its goal would."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clients.poisons.choosing import changed, choose
from clients.shard import Shard
from strategies.shapes import Float, Int, Tensor

DECAYED_AT = (3 / 8, 5 / 8, 7 / 8)  # the release's 1 / 2.667, 1 / 1.6 and 1 / 1.142


def gradient_matching(
    shard: Shard,
    model: nn.Module,
    victims: Float[Tensor, "victims ..."],
    target: int,
    fraction: float,
    rng: np.random.Generator,
    epsilon: float = 16 / 255,
    steps: int = 250,
    restarts: int = 8,
    step_size: float = 0.02,
) -> Shard:
    """Perturb images of the target class, labels untouched, so that victims are called the target.

    Each attacker matches by itself, with all its poisons at once. The release does so in batches of
    512, on images that it shifts and flips at random, as its victims do in training; here nobody
    does that.

    Args:
        shard: The attacker's clean shard.
        model: The attacker's own trained model.
        victims: The very inputs that shall be misclassified, in [0, 1].
        target: The class that they shall get, and the only one that is poisoned.
        fraction: Share of the whole shard that is perturbed (the paper's budget is 1 % of all
            training data).
        rng: Picks which examples, and the starts.
        epsilon: Largest change of a pixel.
        steps: Steps of signed Adam, per start.
        restarts: Random starts; the best is kept.
        step_size: Of a pixel in [0, 1], divided by 10 after 3/8, 5/8 and 7/8 of the steps. The
            release's 0.1 is for standardised pixels: about 0.02 of CIFAR-10's.

    Raises:
        ValueError: If the shard holds too few examples of the target class.

    References:
        Geiping et al., Witches' Brew: Industrial Scale Data Poisoning via Gradient Matching,
        ICLR 2021.
    """
    chosen = choose(shard.labels == target, fraction, rng, f"examples of class {target}")
    if not len(chosen):
        return shard
    perturbation = matching_perturbation(
        model,
        shard.inputs[chosen],
        shard.labels[chosen],
        victims,
        target,
        rng,
        epsilon=epsilon,
        steps=steps,
        restarts=restarts,
        step_size=step_size,
    )
    return changed(shard, chosen, shard.inputs[chosen] + perturbation)


def matching_perturbation(
    model: nn.Module,
    images: Float[Tensor, "n ..."],
    labels: Int[Tensor, " n"],
    victims: Float[Tensor, "victims ..."],
    target: int,
    rng: np.random.Generator,
    *,
    epsilon: float,
    steps: int,
    restarts: int,
    step_size: float,
) -> Float[Tensor, "n ..."]:
    """Return the perturbation whose training gradient points most nearly along the victims'.

    Minimises 1 - cos(∇ loss(images + δ, labels), ∇ loss(victims, target)) over |δ| <= ε with
    images + δ in [0, 1].
    """
    model.eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    wanted = torch.full((len(victims),), target)
    goal = torch.autograd.grad(F.cross_entropy(model(victims), wanted), parameters)
    lowest, highest = (-images).clamp_min(-epsilon), (1 - images).clamp_max(epsilon)
    best, best_loss = torch.zeros_like(images), torch.inf
    for _ in range(restarts):
        start = torch.from_numpy(rng.standard_normal(tuple(images.shape), dtype=np.float32))
        delta = (epsilon * start).clamp(lowest, highest).requires_grad_()
        optimizer = torch.optim.Adam([delta], lr=step_size)
        # At step 0 there is nothing to decay from yet: a single step is a whole one.
        milestones = [step for share in DECAYED_AT if (step := int(steps * share)) > 0]
        decay = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
        loss = torch.tensor(torch.inf)
        for _ in range(steps):
            own = torch.autograd.grad(
                F.cross_entropy(model(images + delta), labels), parameters, create_graph=True
            )
            loss = 1 - _cosine(own, goal)
            (gradient,) = torch.autograd.grad(loss, delta)
            delta.grad = gradient.sign()
            optimizer.step()
            decay.step()
            with torch.no_grad():
                delta.clamp_(lowest, highest)
        if loss.item() < best_loss:  # of the last step's start, as the release compares
            best, best_loss = delta.detach(), loss.item()
    return best


def _cosine(ones: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> Tensor:
    """Return the cosine between two gradients, each given by parameter."""
    product = sum((a * b).sum() for a, b in zip(ones, others, strict=True))
    norms = [torch.stack([part.pow(2).sum() for part in g]).sum().sqrt() for g in (ones, others)]
    return product / (norms[0] * norms[1])
