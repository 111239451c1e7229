"""Which code runs which kind of scenario."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fl_testbed.scenario import AnyScenario, CentralizedScenario

if TYPE_CHECKING:
    from fl_testbed.engine.run_writer import Kind


def kind_of(scenarios: Sequence[AnyScenario]) -> "Kind":
    """Return the code that runs these scenarios: those of one file are all of one kind."""
    # Imported here: they load Flower, and commands that run nothing should not wait for it.
    if isinstance(scenarios[0], CentralizedScenario):
        from fl_testbed.centralized import experiment

        return experiment
    from fl_testbed.engine import federated

    return federated
