"""Whether attackers get what they are after."""

from typing import NamedTuple

import numpy as np


class AttackSuccess(NamedTuple):
    """How the examples fare that attackers want to be misclassified; NaN if there are none.

    None of it means anything without the same figure from a run without the attack.
    """

    n_examples: int
    rate: float
    """Share that the model calls what attackers want: the attack success rate."""
    flip_rate: float
    """The same among those that it calls rightly before the trigger: what the trigger does, without
    what the model gets wrong anyway; NaN also where there is no trigger."""
    accuracy: float
    """Share that it calls rightly. The loss of it is an attack's damage, negative where the attack
    helps."""


def attack_success(
    called: np.ndarray, labels: np.ndarray, target: int, unstamped: np.ndarray | None = None
) -> AttackSuccess:
    """Compute the figures of one goal.

    Args:
        called: What the model calls the examples as attackers show them, shape (n,).
        labels: What they are, shape (n,); none is ``target``.
        target: What attackers want them to be called.
        unstamped: What the model calls them without the trigger, if there is one.
    """
    hits = called == target
    flip_rate = float("nan") if unstamped is None else _share(hits[unstamped == labels])
    return AttackSuccess(len(called), _share(hits), flip_rate, _share(called == labels))


def _share(marks: np.ndarray) -> float:
    return float(marks.mean()) if len(marks) else float("nan")
