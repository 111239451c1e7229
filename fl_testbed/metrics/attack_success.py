"""Whether attackers get what they are after."""

from typing import NamedTuple

import numpy as np


class AttackSuccess(NamedTuple):
    """What a model makes of the examples that attackers want misclassified; NaN if there are none.

    No figure here means anything without the same figure from a run without the attack.
    """

    n_examples: int
    rate: float
    """The attack success rate: the share that the model gives the label that attackers want."""
    flip_rate: float
    """The same share among examples that are classified rightly without the trigger: the effect of
    the trigger, without what the model gets wrong anyway; NaN also where there is no trigger."""
    accuracy: float
    """Share that is classified rightly. By how much an attack lowers it is the attack's damage,
    negative where the attack helps."""


def attack_success(
    called: np.ndarray, labels: np.ndarray, target: int, unstamped: np.ndarray | None = None
) -> AttackSuccess:
    """Compute the figures of one goal.

    Args:
        called: Predicted classes of the examples as attackers present them, shape (n,).
        labels: Their true classes, shape (n,); none is ``target``.
        target: The class that attackers want predicted.
        unstamped: Predicted classes without the trigger, shape (n,); None if there is no trigger.
    """
    hits = called == target
    flip_rate = float("nan") if unstamped is None else _share(hits[unstamped == labels])
    return AttackSuccess(len(called), _share(hits), flip_rate, _share(called == labels))


def _share(marks: np.ndarray) -> float:
    return float(marks.mean()) if len(marks) else float("nan")
