"""Accuracy by group."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GroupAccuracy:
    """How well a model does on each group."""

    n_examples: tuple[int, ...]
    accuracies: tuple[float, ...]
    """One per group; NaN for a group without examples."""
    accuracy: float
    """Mean over groups, each weighted by its share of the honest clients' training data: test sets
    often hold groups in other proportions than the world that the model is trained for."""

    @property
    def worst(self) -> float:
        """Lowest accuracy over groups that have examples; NaN if none has."""
        present = [a for a in self.accuracies if not math.isnan(a)]
        return min(present, default=math.nan)


def group_accuracy(
    correct: np.ndarray, groups: np.ndarray, training_counts: np.ndarray
) -> GroupAccuracy:
    """Compute accuracy by group.

    Args:
        correct: Whether each test example was classified rightly, shape (n,).
        groups: Its group, shape (n,).
        training_counts: Examples of each group in training, shape (groups,).
    """
    n_groups = len(training_counts)
    counts = np.bincount(groups, minlength=n_groups)
    hits = np.bincount(groups, weights=correct, minlength=n_groups)
    tested = counts > 0
    accuracies = np.divide(hits, counts, out=np.full(n_groups, math.nan), where=tested)
    trained = training_counts[tested]
    mix = trained if trained.sum() else np.ones(len(trained))
    accuracy = float(np.average(accuracies[tested], weights=mix)) if tested.any() else math.nan
    return GroupAccuracy(tuple(counts.tolist()), tuple(accuracies.tolist()), accuracy)
