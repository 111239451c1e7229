"""Tests the global model by group and on triggered images."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord
from torch import Tensor, nn

from clients.poisons import is_source
from clients.training import EVALUATION_BATCH
from fl_testbed.data import Federation
from fl_testbed.engine.assembly import build_model
from fl_testbed.metrics import GroupAccuracy, group_accuracy
from fl_testbed.scenario import Scenario
from fl_testbed.scenario.parts import DirtyLabelBackdoorSpec
from strategies.flower_arrays import state_dict_of


@dataclass(frozen=True)
class Evaluation:
    """What the server knows of a model."""

    groups: GroupAccuracy
    attack_success_rate: float
    """Share of triggered source images of the majority that the model calls the target; NaN where
    the scenario has no backdoor."""
    loss: float
    """Mean cross-entropy over the test set."""


class Evaluator:
    """Holds a scenario's test data and a model to load parameters into."""

    def __init__(self, scenario: Scenario, federation: Federation) -> None:
        self._model = build_model(scenario, federation.dataset)
        self._test = (
            federation.validation_set()
            if scenario.evaluation.split == "validation"
            else federation.test_set(scenario.evaluation.max_examples)
        )
        self._training_counts = np.array(list(federation.group_counts().values()))
        self._triggered: Tensor | None = None
        self._target = 0
        if isinstance(scenario.poison, DirtyLabelBackdoorSpec):
            poison = scenario.poison
            source = is_source(self._test.labels, poison.source, poison.target)
            minority = torch.tensor(sorted(federation.minority_groups), dtype=torch.int64)
            source &= ~torch.isin(self._test.groups, minority)
            self._triggered = poison.trigger.build(federation.dataset)(self._test.inputs[source])
            self._target = poison.target

    def __call__(self, arrays: ArrayRecord) -> Evaluation:
        """Test a model."""
        self._model.load_state_dict(state_dict_of(arrays))
        logits = _logits(self._model, self._test.inputs)
        labels = self._test.labels
        correct = (logits.argmax(dim=1) == labels).numpy()
        rate = math.nan
        if self._triggered is not None and len(self._triggered):
            hits = _logits(self._model, self._triggered).argmax(dim=1) == self._target
            rate = hits.double().mean().item()
        groups = group_accuracy(correct, self._test.groups.numpy(), self._training_counts)
        return Evaluation(groups, rate, F.cross_entropy(logits, labels).item())


@torch.no_grad()
def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    model.eval()
    return torch.cat([model(part) for part in inputs.split(EVALUATION_BATCH)])
