"""Tests a model trained on pooled data: by group, poisoned ones included, and on attack goals."""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clients.training import classes_in, logits_of
from fl_testbed.centralized.preparation import Material
from fl_testbed.engine.evaluation import success_of
from fl_testbed.metrics import AttackSuccess, GroupAccuracy, group_accuracy


class GroupRow(NamedTuple):
    """One of the groups of label × attribute × poisoned."""

    group: str
    """By the given label."""
    is_minority: bool
    is_poisoned: bool
    n_train: int
    n_test: int
    accuracy: float
    """For the label as given: in a poisoned group, how often stamped test examples get the label
    that the attacker wants."""


class Verdict(NamedTuple):
    """The figures of one model."""

    groups: GroupAccuracy
    """Of the clean groups, by true labels."""
    rows: list[GroupRow]
    """Clean groups, then poisoned ones that have examples."""
    attack: AttackSuccess
    loss: float
    """Mean cross-entropy over the test set."""

    @property
    def attack_success_rate(self) -> float:
        """How often stamped test examples get the label that the attacker wants."""
        return self.attack.rate

    @property
    def worst_with_poisoned(self) -> float:
        """Lowest accuracy over clean and poisoned groups."""
        present = [row.accuracy for row in self.rows if not math.isnan(row.accuracy)]
        return min(present, default=math.nan)


def judge(model: nn.Module, material: Material) -> Verdict:
    """Test a model on the clean test set, and on what the attacker wants misclassified."""
    test, names = material.test, material.groups.names
    logits = logits_of(model, test.inputs)
    correct = (classes_in(logits) == test.labels).numpy()
    counts = np.bincount(material.clean.groups.numpy(), minlength=len(names))
    groups = group_accuracy(correct, test.groups.numpy(), counts)
    pool = material.poisoned
    honest = torch.bincount(pool.groups[~pool.is_poisoned], minlength=len(names)).tolist()
    tested = zip(names, groups.n_examples, groups.accuracies, strict=True)
    rows = [
        GroupRow(name, g in material.groups.minority, False, honest[g], n_tested, accuracy)
        for g, (name, n_tested, accuracy) in enumerate(tested)
    ]
    rows += _poisoned_rows(model, material)
    goal = material.goal
    attack = AttackSuccess(0, *[math.nan] * 3) if goal is None else success_of(model, goal)
    return Verdict(groups, rows, attack, F.cross_entropy(logits, test.labels).item())


def _poisoned_rows(model: nn.Module, material: Material) -> list[GroupRow]:
    """Return a row for each group, by given label, that holds poisons."""
    pool, groups = material.poisoned, material.groups
    counts = torch.bincount(pool.annotated[pool.is_poisoned], minlength=len(groups.names))
    goal = material.goal
    tested: dict[int, list[AttackSuccess]] = {}
    if goal is not None:
        parts = {g: material.goal_of(g) for g in range(len(groups.names))}
        parts = {g: part for g, part in parts.items() if part is not None and len(part.labels)}
        # Victims drawn from all groups together cannot be assigned to groups afterwards.
        if sum(len(part.labels) for part in parts.values()) == len(goal.labels):
            for group, part in parts.items():
                own = material.annotated_as(group, part.target)
                tested.setdefault(own, []).append(success_of(model, part))
    rows = []
    for group in counts.nonzero().squeeze(1).tolist():
        results = tested.get(group, [])
        n_tested = sum(result.n_examples for result in results)
        hits = sum(result.n_examples * result.rate for result in results)
        rows.append(
            GroupRow(
                groups.names[group],
                False,
                True,
                int(counts[group]),
                n_tested,
                hits / n_tested if n_tested else math.nan,
            )
        )
    return rows
