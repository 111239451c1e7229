"""Figures of a run: pure functions on predictions and on saved tables."""

from fl_testbed.metrics.attack_success import AttackSuccess, attack_success
from fl_testbed.metrics.clients import ClientSpread, client_accuracies, spread
from fl_testbed.metrics.groups import GroupAccuracy, group_accuracy, minority_and_majority
from fl_testbed.metrics.lifting import attack_success_at, lifting
from fl_testbed.metrics.suppression import (
    area_under_curve,
    participation,
    suppression,
    weight_by_group,
)
from fl_testbed.metrics.tables import (
    after_round,
    answered,
    finite_or_none,
    last_restart,
    minorities,
    read_table,
    weighed,
)

__all__ = [
    "AttackSuccess",
    "ClientSpread",
    "GroupAccuracy",
    "after_round",
    "answered",
    "area_under_curve",
    "attack_success",
    "attack_success_at",
    "client_accuracies",
    "finite_or_none",
    "group_accuracy",
    "last_restart",
    "lifting",
    "minorities",
    "minority_and_majority",
    "participation",
    "read_table",
    "spread",
    "suppression",
    "weighed",
    "weight_by_group",
]
