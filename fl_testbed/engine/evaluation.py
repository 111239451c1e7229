"""Tests the global model by group, and on what attackers want it to get wrong."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord
from torch import Tensor, nn

from clients.shard import HONEST
from clients.training import classes_in, logits_of
from fl_testbed.data import Federation, Goal, GroupedExamples
from fl_testbed.data.federation import NOTHING, Learnt
from fl_testbed.data.groups import shown_name
from fl_testbed.engine.models import build_model
from fl_testbed.metrics import (
    AttackSuccess,
    GroupAccuracy,
    attack_success,
    client_accuracies,
    group_accuracy,
    spread,
)
from fl_testbed.scenario import Scenario
from strategies.flower_arrays import state_dict_of
from strategies.shapes import CPU


class Figures(NamedTuple):
    """An evaluation's single numbers, in the order of the columns of ``rounds.csv``."""

    accuracy: float = math.nan
    test_accuracy: float = math.nan
    worst_group_accuracy: float = math.nan
    attack_success_rate: float = math.nan
    loss: float = math.nan
    client_accuracy_variance: float = math.nan
    worst_clients_accuracy: float = math.nan


@dataclass(frozen=True)
class Evaluation:
    """The test results of a model."""

    groups: GroupAccuracy
    attacks: Mapping[str, AttackSuccess]
    """By a poison's name, its success on the majority's test examples."""
    loss: float
    """Mean cross-entropy over the test set."""
    by_client: Mapping[int, float]
    """For each honest client that is judged, the accuracy that it can expect on what it holds."""

    @property
    def figures(self) -> Figures:
        """All that is a single number."""
        groups = self.groups
        return Figures(
            groups.accuracy,
            groups.test_accuracy,
            groups.worst,
            self.attack_success_rate,
            self.loss,
            *spread(np.array(list(self.by_client.values()))),
        )

    @property
    def attack_success_rate(self) -> float:
        """That of the first poison with a goal; NaN if no poison has one (mere damage is none)."""
        first = next(iter(self.attacks.values()), None)
        return math.nan if first is None else first.rate


def test_set(scenario: Scenario, federation: Federation) -> GroupedExamples:
    """Return what the global model is tested on."""
    if scenario.evaluation.split == "validation":
        return federation.validation_set()
    return federation.test_set(scenario.evaluation.max_examples)


class Evaluator:
    """Holds a scenario's test data and a model to load parameters into."""

    def __init__(
        self, scenario: Scenario, federation: Federation, device: torch.device = CPU
    ) -> None:
        self._federation = federation
        self._evaluation = scenario.evaluation
        self._model = build_model(scenario, federation.dataset).to(device)
        self._test = test_set(scenario, federation)
        self._inputs = self._test.inputs.to(device)
        self._training_counts = federation.group_counts(*HONEST)
        self._cells = self._test.groups * federation.dataset.n_classes + self._test.labels
        self._judged = _judged(federation, scenario.evaluation.n_clients)
        self._holdings = federation.cell_counts(self._judged)
        self._own = [self._own_tests(client) for client in self._judged]
        self._device = device
        self._goals = self._goals_after(NOTHING)

    @property
    def untested(self) -> list[str]:
        """The groups, as tables show them, and classes that honest clients hold but of which there
        is no test example."""
        tested = np.bincount(self._test.groups, minlength=len(self._training_counts))
        groups = [
            shown_name(name, is_minority=group in self._federation.groups.minority)
            for group, name in enumerate(self._federation.group_names)
            if self._training_counts[group] and not tested[group]
        ]
        held = self._holdings.sum(axis=0).nonzero()[0] % self._federation.dataset.n_classes
        classes = np.setdiff1d(held, self._test.labels)
        return groups + [f"class {label}" for label in classes]

    def _goals_after(self, learnt: Learnt) -> Mapping[str, Goal]:
        goals = self._federation.poison.goals(self._federation.majority(self._test), learnt)
        return {name: _shown_on(self._device, goal) for name, goal in goals.items()}

    def __call__(self, arrays: ArrayRecord, learnt: Learnt = NOTHING) -> Evaluation:
        """Test a model; ``learnt`` is what attackers have learnt by now, such as their triggers."""
        if learnt:
            self._goals = self._goals_after(learnt)
        self._model.load_state_dict(state_dict_of(arrays))
        logits = logits_of(self._model, self._inputs).cpu()
        labels = self._test.labels
        correct = (classes_in(logits) == labels).numpy()
        groups = group_accuracy(correct, self._test.groups.numpy(), self._training_counts)
        attacks = {name: success_of(self._model, goal) for name, goal in self._goals.items()}
        accuracies = client_accuracies(correct, self._cells.numpy(), self._holdings, self._own)
        by_client = dict(zip(self._judged, accuracies.tolist(), strict=True))
        return Evaluation(groups, attacks, F.cross_entropy(logits, labels).item(), by_client)

    def of_client(self, client: int, arrays: ArrayRecord) -> tuple[float, float]:
        """Return the accuracy of a client's own model on what it holds, and its attack success."""
        self._model.load_state_dict(state_dict_of(arrays))
        correct = _called(self._model, self._inputs) == self._test.labels.numpy()
        holdings = self._federation.cell_counts([client])
        own = [self._own_tests(client)]
        (accuracy,) = client_accuracies(correct, self._cells.numpy(), holdings, own)
        first = next(iter(self._goals.values()), None)
        return float(accuracy), math.nan if first is None else success_of(self._model, first).rate

    def _own_tests(self, client: int) -> np.ndarray:
        settings = self._evaluation
        return self._federation.own_tests(client, settings.split, settings.max_examples)


def success_of(model: nn.Module, goal: Goal) -> AttackSuccess:
    """Return what a model makes of a goal's examples."""
    unstamped = None if goal.unstamped is None else _called(model, goal.unstamped)
    return attack_success(_called(model, goal.inputs), goal.labels.numpy(), goal.target, unstamped)


def _called(model: nn.Module, inputs: Tensor) -> np.ndarray:
    if not len(inputs):
        return np.empty(0, dtype=np.int64)
    return classes_in(logits_of(model, inputs).cpu()).numpy()


def _judged(federation: Federation, most: int) -> list[int]:
    """Return the honest clients to judge: all, or ``most`` of them, evenly spaced.

    Client ids go role by role, so each role gets its share.
    """
    n_honest = len(federation.population) - federation.population.poisoned
    n = min(n_honest, most)
    return [place * n_honest // n for place in range(n)]


def _shown_on(device: torch.device, goal: Goal) -> Goal:
    unstamped = None if goal.unstamped is None else goal.unstamped.to(device)
    return goal._replace(inputs=goal.inputs.to(device), unstamped=unstamped)
