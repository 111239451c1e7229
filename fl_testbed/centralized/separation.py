"""How well a score tells poisons from the minority: the impossibility, measured."""

from typing import NamedTuple

import numpy as np
import torch

from fl_testbed.centralized.pool import Pool
from fl_testbed.metrics import area_under_curve
from strategies.shapes import Float, Tensor


class Separation(NamedTuple):
    """How well a score, higher for what is suspected more, tells poisons from the minority. Both
    figures are NaN without poisons or minority, or if a score is NaN (the model diverged)."""

    auc: float
    """P(poison above minority example) + P(equal) / 2: at 0.5 the score cannot tell them apart,
    below it poisons look more normal than the minority."""
    threshold_error: float
    """The minimum over all thresholds of the share of minority examples above the threshold plus
    the share of poisons not above it: 1 is no better than flagging nothing."""


def separation(poisons: np.ndarray, minority: np.ndarray) -> Separation:
    """Compare two samples of scores."""
    cuts = np.unique(np.concatenate([poisons, minority]))
    if not len(poisons) or not len(minority) or np.isnan(cuts).any():
        return Separation(float("nan"), float("nan"))
    removed, caught = (
        (len(own) - np.searchsorted(np.sort(own), cuts, side="right")) / len(own)
        for own in (minority, poisons)
    )
    error = float((removed + 1 - caught).min())
    return Separation(area_under_curve(poisons, minority), error)


def separations(scores: Float[Tensor, " n"], pool: Pool) -> tuple[Separation, Separation]:
    """Return how poisons separate from all of the minority, and from those with the same label."""
    poisoned, minority = pool.is_poisoned, pool.is_minority
    same = minority & torch.isin(pool.labels, pool.labels[poisoned].unique())
    values = scores.double().numpy()
    poisons = values[poisoned.numpy()]
    return (
        separation(poisons, values[minority.numpy()]),
        separation(poisons, values[same.numpy()]),
    )
