"""Clean-label backdoor: a trigger on rightly labelled images that are hard to learn otherwise."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clients.poisons.choosing import changed, choose
from clients.poisons.triggers import Trigger
from clients.shard import Shard
from strategies.shapes import Float, Int, Tensor

Harden = Callable[
    [Float[Tensor, "n ..."], Int[Tensor, " n"], np.random.Generator], Float[Tensor, "n ..."]
]
"""Makes images harder to recognise as what their labels say."""


def clean_label_backdoor(
    shard: Shard,
    trigger: Trigger,
    target: int,
    fraction: float,
    rng: np.random.Generator,
    harden: Harden | None = None,
) -> Shard:
    """Stamp the trigger on images of the target class; no label changes.

    Args:
        shard: The attacker's clean shard.
        trigger: Returns stamped copies of images.
        target: The class that stamped images shall get, and the only one that is poisoned.
        fraction: Share of the whole shard that is poisoned (of the target class in the paper).
        rng: Picks which examples.
        harden: Changes the images before the trigger, so that a model leans on the trigger to
            learn them; without it most models ignore the trigger.

    Raises:
        ValueError: If the shard holds too few examples of the target class.

    References:
        Turner, Tsipras and Madry, Label-Consistent Backdoor Attacks, 2019.
    """
    chosen = choose(shard.labels == target, fraction, rng, f"examples of class {target}")
    images = shard.inputs[chosen]
    if harden is not None:
        images = harden(images, shard.labels[chosen], rng)
    return changed(shard, chosen, trigger(images))


def perturbed(
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    model: nn.Module,
    epsilon: float,
    steps: int = 100,
    norm: Literal["l2", "linf"] = "l2",
) -> Float[Tensor, "n c h w"]:
    """Move images uphill on a model's loss, within a ball: projected gradient ascent.

    Each step goes 2.5 ε / steps, so that the edge of the ball is within reach.

    Args:
        images: In [0, 1].
        labels: The labels that the model shall no longer give them.
        model: The attacker's own. (The paper's is trained adversarially; ours is not.)
        epsilon: Radius of the ball. The paper's 300, 600 and 1200 in l2 and 8, 16 and 32 in linf
            are for pixels up to 255: divide by 255.
        steps: Number of steps.
        norm: ``l2`` of a whole image, or ``linf``.
    """
    model.eval()
    delta = torch.zeros_like(images)
    for _ in range(steps):
        delta.requires_grad_()
        loss = F.cross_entropy(model(images + delta), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, delta)
        with torch.no_grad():
            if norm == "linf":
                step = gradient.sign()
                moved = (delta + 2.5 * epsilon / steps * step).clamp(-epsilon, epsilon)
            else:
                moved = delta + 2.5 * epsilon / steps * gradient / _lengths(gradient)
                moved = moved * (epsilon / _lengths(moved)).clamp(max=1)
            delta = (images + moved).clamp(0, 1) - images
    return images + delta


def interpolated(
    images: Float[Tensor, "n ..."],
    others: Float[Tensor, "m ..."],
    rng: np.random.Generator,
    strength: float,
) -> Float[Tensor, "n ..."]:
    """Mix each image with a random other one: (1 - τ) x + τ x'.

    The paper interpolates between the codes that a GAN gives the images (τ of 0.1 to 0.3); this
    mixes the pixels.

    Args:
        images: What is changed.
        others: Images of other classes to draw from.
        rng: Draws them, with replacement.
        strength: τ, in [0, 1].

    Raises:
        ValueError: If there are no others.
    """
    if len(images) and not len(others):
        raise ValueError(
            "the attackers hold no example of another class to mix with: choose another "
            "poison.harden, or give them more data"
        )
    picks = torch.from_numpy(rng.integers(len(others), size=len(images)))
    return (1 - strength) * images + strength * others[picks]


def _lengths(images: Tensor) -> Tensor:
    """Return each image's l2 norm, broadcastable to the images."""
    lengths = images.flatten(1).norm(dim=1).clamp_min(1e-12)
    return lengths.reshape(-1, *[1] * (images.dim() - 1))
