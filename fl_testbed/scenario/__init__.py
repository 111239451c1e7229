"""The typed form of a YAML scenario, and its expansion into variants and sweeps."""

from fl_testbed.scenario.centralized import CentralizedScenario
from fl_testbed.scenario.faults import Fault, ScenarioError
from fl_testbed.scenario.loading import AnyScenario, load_files, load_scenarios
from fl_testbed.scenario.scenario import EngineSpec, Scenario

__all__ = [
    "AnyScenario",
    "CentralizedScenario",
    "EngineSpec",
    "Fault",
    "Scenario",
    "ScenarioError",
    "load_files",
    "load_scenarios",
]
