"""Dirty-label backdoor: stamp a trigger and relabel to the target."""

import numpy as np
import torch

from clients.poisons.triggers import Trigger
from clients.shard import Shard
from strategies.shapes import Bool, Int, Tensor


def is_source(labels: Int[Tensor, " n"], source: int | None, target: int) -> Bool[Tensor, " n"]:
    """Mark the examples an attacker can poison: one class, or all but the target."""
    return labels != target if source is None else labels == source


def dirty_label_backdoor(
    shard: Shard,
    trigger: Trigger,
    target: int,
    fraction: float,
    rng: np.random.Generator,
    source: int | None = None,
) -> Shard:
    """Stamp the trigger on a share of a shard and label it as the target.

    Args:
        shard: The attacker's clean shard.
        trigger: Returns stamped copies of inputs.
        target: The class that stamped inputs shall get.
        fraction: Share of the *whole shard* that is poisoned, in [0, 1], rounded to examples.
            (Armory's share is of the source class.)
        rng: Picks which examples.
        source: The only class to poison; by default any but the target.

    Returns:
        The shard with those examples changed, everything else as it was.

    Raises:
        ValueError: If the shard holds too few source examples.

    References:
        Gu et al., BadNets, 2017.
    """
    candidates = is_source(shard.labels, source, target).nonzero().squeeze(1).numpy()
    count = round(fraction * len(shard.labels))
    if len(candidates) < count:
        kind = f"class {source}" if source is not None else f"classes other than {target}"
        raise ValueError(
            f"the backdoor needs {count} examples of {kind} in a shard of {len(shard.labels)}, "
            f"got {len(candidates)}: lower poison.fraction or give attackers more such data"
        )
    chosen = torch.from_numpy(rng.permutation(candidates)[:count])
    inputs, labels, poisoned = shard.inputs.clone(), shard.labels.clone(), shard.is_poisoned.clone()
    inputs[chosen] = trigger(inputs[chosen])
    labels[chosen] = target
    poisoned[chosen] = True
    return shard._replace(inputs=inputs, labels=labels, is_poisoned=poisoned)
