"""The datasets of a command, and the check that they suffice for its scenarios."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from fl_testbed.data import DataError, Dataset, Federation
from fl_testbed.data.partition import Draws
from fl_testbed.engine.assembly import build_federation
from fl_testbed.engine.evaluation import test_set
from fl_testbed.engine.models import layers_of, outlined_model
from fl_testbed.scenario import AnyScenario, Fault, Scenario, ScenarioError
from fl_testbed.scenario.initial_model import InitialModelError
from fl_testbed.scenario.naming import named
from fl_testbed.scenario.own_specs import fresh_code
from fl_testbed.scenario.strategy import StrategySpec
from fl_testbed.scenario.users_code import OwnCodeError
from strategies.aggregation.layers import OutputLayerError
from strategies.randomness import Purpose, generator

S = TypeVar("S", bound=AnyScenario)
KEY = re.compile(r"(\w+)\.(\w+)")  # that an error's text begins with, such as poison.target


def load_dataset(scenario: AnyScenario, data_dir: Path | None) -> Dataset:
    """Load the scenario's dataset.

    Raises:
        DataError: If its files are not there or are broken.
    """
    with fresh_code(scenario.dataset) as spec:  # runs share the dataset, but not the user's code
        return spec.load(data_dir, generator(scenario.seed, Purpose.PARTITION, Draws.SPLIT))


class DatasetCache:
    """Keeps the last datasets: variants of a scenario share one, and so do seeds unless they draw
    the data."""

    KEPT = 2  # that of the runs going on, and that of the next ones to begin

    def __init__(self, data_dir: Path | None) -> None:
        self._data_dir = data_dir
        self._loaded: dict[tuple[Any, ...], Dataset] = {}  # in order of last use

    def get(self, scenario: AnyScenario) -> Dataset:
        """Return the scenario's dataset.

        Raises:
            DataError: If its files are not there or are broken.
        """
        key = scenario.dataset.identity(scenario.seed)
        dataset = self._loaded.pop(key, None)
        if dataset is None:
            while len(self._loaded) >= self.KEPT:
                del self._loaded[next(iter(self._loaded))]  # free memory before loading the next
            dataset = load_dataset(scenario, self._data_dir)
        self._loaded[key] = dataset
        return dataset

    def kept(self, scenario: AnyScenario) -> Dataset | None:
        """Return the scenario's dataset if it is in memory."""
        return self._loaded.get(scenario.dataset.identity(scenario.seed))


def by_dataset(scenarios: Sequence[S]) -> list[S]:
    """Order scenarios by dataset, so that each dataset is loaded once though few are kept."""
    of_one: dict[tuple[Any, ...], list[S]] = {}
    for scenario in scenarios:
        of_one.setdefault(scenario.dataset.identity(scenario.seed), []).append(scenario)
    return [scenario for own in of_one.values() for scenario in own]


def check_data(scenarios: Sequence[Scenario], datasets: DatasetCache) -> None:
    """Build every federation once, before anything runs, and keep none.

    Raises:
        ScenarioError: With a fault for each scenario whose data do not suffice.
    """
    poisoned: set[tuple[str, str]] = set()

    def check(scenario: Scenario) -> None:
        # Only a variant's first seed tries the poison: making it may take a training.
        run = scenario.name, scenario.variant
        is_first = run not in poisoned
        poisoned.add(run)
        checked_federation(scenario, datasets, poison=is_first)

    check_each(scenarios, check)


def check_each(scenarios: Sequence[S], check: Callable[[S], None]) -> None:
    """Check scenarios, dataset by dataset, and raise all their faults together."""
    having: dict[Fault, list[AnyScenario]] = {}
    for scenario in by_dataset(scenarios):
        try:
            check(scenario)
        except ScenarioError as error:
            for fault in error.faults:
                having.setdefault(fault, []).append(scenario)
    if having:
        raise ScenarioError(*(_of_runs(f, own, scenarios) for f, own in having.items()))


def _of_runs(fault: Fault, own: Sequence[AnyScenario], scenarios: Sequence[AnyScenario]) -> Fault:
    """Add to a fault the variants that have it, if others do not, and the seeds, if the first seed,
    which is checked most thoroughly, does not."""
    if not fault.where:  # a user's code, whose file and line the text begins with
        return fault
    there = [s for s in scenarios if s.name == own[0].name]
    variants = list(dict.fromkeys(s.variant for s in own))
    seeds = list(dict.fromkeys(str(s.seed) for s in own))
    where = fault.where
    if len(variants) < len({s.variant for s in there}):
        where += f", {named(variants, 1)}"
    if str(there[0].seed) not in seeds:
        where += f", seed {named(seeds, 3)}"
    return replace(fault, where=where)


def checked_federation(
    scenario: Scenario, datasets: DatasetCache, *, poison: bool = True
) -> Federation:
    """Return a scenario's federation, once it is checked that the data suffice.

    Args:
        scenario: The scenario.
        datasets: Loads its dataset.
        poison: Whether to check also that attackers can poison what they hold.

    Raises:
        ScenarioError: If the data do not suffice.
    """
    with data_faults(scenario):
        federation = build_federation(scenario, datasets.get(scenario))
        model = outlined_model(scenario, federation.dataset)  # raises if it does not fit the data
        if isinstance(scenario.strategy, StrategySpec):
            rule = scenario.strategy.aggregation
            rule.check_layers(layers_of(model), federation.dataset.n_classes)
        for kind in scenario.attacker_kinds if poison else ():
            for attacker in kind.clients[:1]:
                federation.shard(attacker)  # raises if triggers do not fit or examples are missing
        nobodys = not all(map(scenario.attackers_with, scenario.named_poisons))
        if poison and nobodys:  # a poison without attackers is measured too
            federation.poison.goals(federation.majority(test_set(scenario, federation)))
        return federation


def _named_by(text: str, scenario: AnyScenario) -> str:
    """Return the key at the top of that which a text begins with, or nothing: clients.csv is a
    file."""
    if begin := KEY.match(text):
        outer, inner = begin.groups()
        if inner in getattr(type(getattr(scenario, outer, None)), "model_fields", {}):
            return outer
    return ""


@contextmanager
def data_faults(scenario: AnyScenario) -> Iterator[None]:
    """Turn errors that show only once data are dealt into faults that name the scenario's key and
    where it was written.

    Raises:
        ScenarioError: In place of the error raised inside.
    """
    try:
        yield
    except DataError as fault:
        outer = _named_by(str(fault), scenario)
        where = scenario.line_of(outer or "dataset")
        faults = [Fault(where, "" if outer else "dataset", str(fault))]
    except InitialModelError as fault:
        faults = [Fault.of(scenario, "init", text) for text in fault.texts]
    except OwnCodeError as fault:
        faults = [Fault("", "", str(fault))]
    except OutputLayerError as fault:
        faults = [Fault.of(scenario, "model", str(fault))]
    except ValueError as fault:
        faults = [Fault.of(scenario, "poison", str(fault))]
    else:
        return
    raise ScenarioError(*faults)
