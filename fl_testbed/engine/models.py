"""The model that a run starts from."""

import numpy as np
import torch
from torch import nn

from fl_testbed.data import Dataset
from fl_testbed.scenario import AnyScenario, Scenario
from fl_testbed.scenario.models import OwnModelSpec
from strategies.flower_arrays import Layout
from strategies.randomness import Purpose, generator


def initialised(scenario: AnyScenario, dataset: Dataset, rng: np.random.Generator) -> nn.Module:
    """Return the scenario's model: with random parameters, or the trained one that it names.

    Raises:
        InitialModelError: If the trained model that the scenario names does not fit.
    """
    seed = int(rng.integers(2**63))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = scenario.model.build(dataset)
    if scenario.init is not None:
        scenario.init.load_into(model)
    return model


def build_model(scenario: Scenario, dataset: Dataset) -> nn.Module:
    """Return the model that a run starts from: initialised by the seed alone, or the trained one.

    Raises:
        InitialModelError: If the trained model that the scenario names does not fit.
    """
    model = initialised(scenario, dataset, generator(scenario.seed, Purpose.MODEL))
    return model.to(memory_format=torch.channels_last)  # as clients hold it: faster on a CPU


def buffers_of(model: nn.Module) -> frozenset[str]:
    """Return the names of the arrays in a model's state that no optimizer trains."""
    parameters = model.named_parameters(remove_duplicate=False)
    trained = {name for name, values in parameters if values.requires_grad}
    return frozenset(model.state_dict()) - trained


def layers_of(model: nn.Module) -> dict[str, slice]:
    """Return by name where each of a model's parameter arrays stands in an update."""
    return Layout.of(model.state_dict(), buffers_of(model)).layers


_OUTLINES: dict[str, nn.Module] = {}
"""The last of users' own models that was outlined: runs of a sweep mostly share one, which is thus
built and tried once."""


def outlined_model(scenario: Scenario, dataset: Dataset) -> nn.Module:
    """Return the scenario's model for its shapes alone, without values, which memory may not hold.

    Raises:
        InitialModelError: If the trained model that the scenario names does not fit.
    """
    if scenario.init is not None:
        return build_model(scenario, dataset)
    if isinstance(scenario.model, OwnModelSpec):  # a user's code may need values
        key = f"{scenario.model!r} {dataset.input_shape} {dataset.n_classes}"
        if key not in _OUTLINES:
            _OUTLINES.clear()
            _OUTLINES[key] = build_model(scenario, dataset)
        return _OUTLINES[key]
    with torch.device("meta"):
        return scenario.model.build(dataset)
