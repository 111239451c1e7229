"""The datasets of a command, and whether there are data enough for its scenarios."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from fl_testbed.data import DataError, Dataset, Federation
from fl_testbed.engine.assembly import build_federation, load_dataset, outlined_model
from fl_testbed.scenario import AnyScenario, Fault, Scenario, ScenarioError
from fl_testbed.scenario.initial_model import InitialModelError
from fl_testbed.scenario.own_code import OwnCodeError

S = TypeVar("S", bound=AnyScenario)


class DatasetCache:
    """Keeps the last datasets: variants of a scenario share them, and seeds where none is drawn."""

    KEPT = 2  # one that runs are on, and one that the next begin on

    def __init__(self, data_dir: Path | None) -> None:
        self._data_dir = data_dir
        self._loaded: dict[tuple[Any, ...], Dataset] = {}  # the last used last

    def get(self, scenario: AnyScenario) -> Dataset:
        """Return the scenario's dataset.

        Raises:
            DataError: If its files are not there or are broken.
        """
        key = scenario.dataset.identity(scenario.seed)
        dataset = self._loaded.pop(key, None)
        if dataset is None:
            while len(self._loaded) >= self.KEPT:
                del self._loaded[next(iter(self._loaded))]  # before the next takes its memory
            dataset = load_dataset(scenario, self._data_dir)
        self._loaded[key] = dataset
        return dataset


def by_dataset(scenarios: Sequence[S]) -> list[S]:
    """Return scenarios so that those of one dataset, of which few are kept, follow each other."""
    keys = [scenario.dataset.identity(scenario.seed) for scenario in scenarios]
    places = {key: place for place, key in reversed(list(enumerate(keys)))}  # the first of each
    order = sorted(range(len(keys)), key=lambda place: places[keys[place]])
    return [scenarios[place] for place in order]


def check_data(scenarios: Sequence[Scenario], datasets: DatasetCache) -> None:
    """Build every federation once, before anything runs, and keep none.

    Raises:
        ScenarioError: With a fault for each scenario that its data do not suffice for.
    """
    faults: dict[Fault, None] = {}  # ordered, without repetitions
    poisoned: set[tuple[str, str]] = set()
    for scenario in by_dataset(scenarios):
        run = scenario.name, scenario.variant
        try:
            # Of the seeds one alone tries the poison: to make some takes a training.
            checked_federation(scenario, datasets, poison=run not in poisoned)
        except ScenarioError as error:
            faults.update(dict.fromkeys(error.faults))
        poisoned.add(run)
    if faults:
        raise ScenarioError(list(faults))


def checked_federation(
    scenario: Scenario, datasets: DatasetCache, *, poison: bool = True
) -> Federation:
    """Return a scenario's federation, for which there are data enough.

    Args:
        scenario: The scenario.
        datasets: Where its dataset is.
        poison: Whether to see also that attackers can poison what they hold.

    Raises:
        ScenarioError: If there are not.
    """
    try:
        federation = build_federation(scenario, datasets.get(scenario))
        outlined_model(scenario, federation.dataset)  # may not take such inputs
        for ids, _ in scenario.attackers_by_id if poison else ():
            for attacker in ids[:1]:
                federation.shard(attacker)  # a trigger may not fit, or examples be missing
    except DataError as fault:
        faults = [Fault(scenario.name, "dataset", str(fault))]
    except InitialModelError as fault:
        faults = [Fault(scenario.name, "init", text) for text in fault.texts]
    except OwnCodeError as fault:
        faults = [Fault("", "", str(fault))]
    except ValueError as fault:
        faults = [Fault(scenario.name, "poison", str(fault))]
    else:
        return federation
    raise ScenarioError(faults)
