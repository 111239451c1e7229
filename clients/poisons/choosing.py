"""Which examples of a shard an attacker changes."""

import numpy as np
import torch

from clients.shard import Shard
from strategies.shapes import Bool, Int, Tensor


def is_source(labels: Int[Tensor, " n"], source: int | None, target: int) -> Bool[Tensor, " n"]:
    """Mark the examples an attacker can poison: one class, or all but the target."""
    return labels != target if source is None else labels == source


def choose(
    candidates: Bool[Tensor, " n"], fraction: float, rng: np.random.Generator, what: str
) -> Int[Tensor, " chosen"]:
    """Draw the examples to poison among those that can be.

    Args:
        candidates: Which examples can be poisoned.
        fraction: Share of the *whole shard* to poison, in [0, 1], rounded to examples. (Armory's
            and Turner et al.'s share is of the class that is poisoned.)
        rng: Draws them.
        what: What the candidates are, for the error.

    Raises:
        ValueError: If there are too few candidates.
    """
    count = check_candidates(candidates, fraction, what)
    rows = candidates.nonzero().squeeze(1).numpy()
    return torch.from_numpy(rng.permutation(rows)[:count])


def check_candidates(candidates: Bool[Tensor, " n"], fraction: float, what: str) -> int:
    """Return how many examples :func:`choose` draws.

    Raises:
        ValueError: If there are too few candidates.
    """
    count, found = round(fraction * len(candidates)), int(candidates.sum())
    if found < count:
        raise ValueError(
            f"the poison needs {count} {what} in a shard of {len(candidates)}, got {found}: "
            "lower poison.fraction or give attackers more such data"
        )
    return count


def classes_named(source: int | None, target: int) -> str:
    """Return what :func:`is_source` marks, in words."""
    kind = f"class {source}" if source is not None else f"classes other than {target}"
    return f"examples of {kind}"


def changed(
    shard: Shard,
    chosen: Int[Tensor, " chosen"],
    inputs: Tensor | None = None,
    labels: Int[Tensor, " chosen"] | int | None = None,
) -> Shard:
    """Return a copy of a shard with some examples' inputs or labels replaced and marked."""
    new_inputs, new_labels = shard.inputs, shard.labels
    if inputs is not None:
        new_inputs = shard.inputs.clone()
        new_inputs[chosen] = inputs
    if labels is not None:
        new_labels = shard.labels.clone()
        new_labels[chosen] = labels
    is_poisoned = shard.is_poisoned.clone()
    is_poisoned[chosen] = True
    return shard._replace(inputs=new_inputs, labels=new_labels, is_poisoned=is_poisoned)
