"""Dirty-label backdoor: stamp a trigger and relabel to the target."""

import numpy as np

from clients.poisons.choosing import changed, choose, classes_named, is_source
from clients.poisons.triggers import Trigger
from clients.shard import Shard


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
        fraction: Share of the whole shard that is poisoned.
        rng: Picks which examples.
        source: The only class to poison; by default any but the target.

    Returns:
        The shard with those examples changed, everything else as it was.

    Raises:
        ValueError: If the shard holds too few source examples.

    References:
        Gu et al., BadNets, 2017.
    """
    candidates = is_source(shard.labels, source, target)
    chosen = choose(candidates, fraction, rng, classes_named(source, target))
    return changed(shard, chosen, trigger(shard.inputs[chosen]), target)
