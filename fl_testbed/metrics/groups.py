"""Accuracy by group."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class GroupAccuracy:
    """How well a model does on each group."""

    n_examples: tuple[int, ...]
    accuracies: tuple[float, ...]
    """One per group; NaN for a group without examples."""
    accuracy: float
    """Mean over groups, each weighted by its share of the honest clients' training data: test sets
    often hold groups in other proportions than the data that the model is meant for."""

    @property
    def worst(self) -> float:
        """Lowest accuracy over groups that have examples; NaN if none has."""
        present = [a for a in self.accuracies if not math.isnan(a)]
        return min(present, default=math.nan)

    @property
    def test_accuracy(self) -> float:
        """Share of all test examples that are classified rightly; NaN without any."""
        found = [n * a for n, a in zip(self.n_examples, self.accuracies, strict=True) if n]
        return sum(found) / sum(self.n_examples) if found else math.nan


def group_accuracy(
    correct: np.ndarray, groups: np.ndarray, training_counts: np.ndarray
) -> GroupAccuracy:
    """Compute accuracy by group.

    Args:
        correct: Whether each test example was classified rightly, shape (n,).
        groups: The group of each test example, shape (n,).
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


def minority_and_majority(groups: pd.DataFrame) -> dict[str, float]:
    """Return the accuracy on the test examples of all minority groups, and on all others.

    Args:
        groups: Rows of ``groups.csv``; several rounds are averaged.

    Returns:
        ``minority_accuracy`` and ``majority_accuracy``: both NaN where there is no minority, one
        NaN where it has no test examples.
    """
    tested, has_minority = groups[groups["n_examples"] > 0], bool(groups["is_minority"].any())
    is_minority = tested["is_minority"].astype(bool)
    parts = {"minority": tested[is_minority], "majority": tested[~is_minority]}
    return {
        f"{name}_accuracy": float(np.average(own["accuracy"], weights=own["n_examples"]))
        if has_minority and len(own)
        else math.nan
        for name, own in parts.items()
    }
