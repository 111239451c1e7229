"""Label flip: the images stay, their labels change."""

from collections.abc import Callable

import numpy as np
import torch

from clients.poisons.choosing import changed, choose
from clients.shard import Shard
from strategies.shapes import Int, Tensor

Relabel = Callable[[Int[Tensor, " n"], np.random.Generator], Int[Tensor, " n"]]
"""Returns the labels that an attacker would give to examples of the given labels; an example whose
label stays the same is spared."""


def pairwise(source: int, target: int) -> Relabel:
    """Call the source class the target class, and no other anything else (FLPoison: 2 to 7)."""
    return lambda labels, rng: torch.where(labels == source, target, labels)


def mirrored(n_classes: int) -> Relabel:
    """Call class c the class C - 1 - c (Blades); an odd C spares the middle one."""
    return lambda labels, rng: n_classes - 1 - labels


def random_other(n_classes: int) -> Relabel:
    """Call each example one of the other classes, each equally likely.

    Ditto's random labels may be the right one: with ten classes a tenth of the examples stays
    clean.
    """
    return lambda labels, rng: (
        (labels + torch.from_numpy(rng.integers(1, n_classes, len(labels)))) % n_classes
    )


def label_flip(
    shard: Shard, relabel: Relabel, fraction: float | None, rng: np.random.Generator
) -> Shard:
    """Relabel a share of a shard.

    Args:
        shard: The attacker's clean shard.
        relabel: What the attacker would call each example.
        fraction: Share of the whole shard that is relabelled (0.32 in FLPoison); None relabels all
            examples whose label would change (Blades).
        rng: Picks which examples, and their labels where these are random.

    Raises:
        ValueError: If too few examples would change their label.

    References:
        Tolpegin et al., Data Poisoning Attacks against Federated Learning Systems, ESORICS 2020.
    """
    wrong = relabel(shard.labels, rng)
    candidates = wrong != shard.labels
    if fraction is None:
        chosen = candidates.nonzero().squeeze(1)
    else:
        chosen = choose(candidates, fraction, rng, "examples that the flip relabels")
    return changed(shard, chosen, labels=wrong[chosen])
