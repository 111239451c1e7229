"""Runs of federated scenarios, in the form that the launcher expects: check, compute, sum up."""

from collections.abc import Iterator, Mapping, Sequence

from clients.device_memory import release_gpus
from fl_testbed.data import Dataset
from fl_testbed.engine.assembly import build_client_app, build_federation
from fl_testbed.engine.datasets import DatasetCache, check_data
from fl_testbed.engine.inline_grid import InlineGrid
from fl_testbed.engine.memory import check_memory
from fl_testbed.engine.placement import largest_cohort, training_memory
from fl_testbed.engine.rounds import COLUMNS, Run
from fl_testbed.engine.run_folder import Record, State
from fl_testbed.engine.summary import summarise
from fl_testbed.scenario import Scenario

__all__ = ["check", "columns", "records", "spreads", "summarise"]

spreads = True


def columns(scenario: Scenario) -> Mapping[str, Sequence[str]]:
    """Return the tables of a run, and their columns."""
    return COLUMNS


def check(scenarios: Sequence[Scenario], datasets: DatasetCache) -> None:
    """Check that data and memory suffice.

    Raises:
        ScenarioError: If they do not.
    """
    check_data(scenarios, datasets)
    check_memory(scenarios, datasets)


def records(
    dataset: Dataset, scenario: Scenario, done: int, state: State | None
) -> Iterator[Record]:
    """Run a scenario in this process."""
    federation = build_federation(scenario, dataset)
    memory = training_memory(scenario.engine)
    app = build_client_app(
        scenario,
        federation,
        memory,
        largest_cohort(scenario, memory.device),
        stays_on_device=True,
    )
    grid = InlineGrid(app, scenario.engine.client_timeout_s)
    try:
        yield from Run(scenario, federation, grid).rounds(done, state)
    finally:
        del app, grid  # frees their GPU memory before the next run
        release_gpus()
