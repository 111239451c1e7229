"""The shipped scenarios on real data: who holds what, told by the examples' numbers."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from clients.shard import Role
from fl_testbed.data import Dataset
from fl_testbed.engine.assembly import build_federation
from fl_testbed.engine.datasets import load_dataset
from fl_testbed.scenario import Scenario, load_scenarios

CONFIGS = Path(__file__).parents[3] / "configs"
SCENARIOS = (
    "quickstart",
    "inverted_fashion_mnist",
    "writers_by_population",
    "fairface_by_race",
    "fairface_by_gender_and_age",
    "adult_by_sex_and_income",
)
HELD_OUT = (
    "server_data.n_examples=20",
    "server_data.minority_fraction=0.2",
    "evaluation.n_validation=30",
)


@cache
def attacked(name: str) -> Scenario:
    """A scenario's undefended variant with server and validation data of its own."""
    scenarios = load_scenarios(CONFIGS / f"{name}.yaml", HELD_OUT)
    return next(s for s in scenarios if s.variant == "mean" and s.seed == 0)


@cache
def dataset(name: str, folder: Path) -> Dataset:
    return load_dataset(attacked(name), folder)


@pytest.mark.parametrize("name", SCENARIOS)
def test_nobody_is_tested_on_what_anybody_trains_on(name, data_dir):
    data = dataset(name, data_dir)
    federation = build_federation(attacked(name), data)
    shards = federation.partition
    ids = np.arange(len(data.train)) if data.train.ids is None else data.train.ids
    clients = [ids[shards.client_rows(c)] for c in range(len(federation.population))]
    apart = [*clients, ids[shards.server], ids[shards.validation], data.test.ids]
    every = np.concatenate(apart)
    assert len(np.unique(every)) == len(every)
    assert (len(shards.server), len(shards.validation)) == (20, 30)
    judged = federation.validation_set()
    assert len(judged.labels) % 30 == 0
    if data.train.clients is not None:
        assert not set(data.train.clients.tolist()) & set(data.test.clients.tolist())


@pytest.mark.parametrize("name", SCENARIOS)
def test_minority_clients_alone_hold_the_minority(name, data_dir):
    federation = build_federation(attacked(name), dataset(name, data_dir))
    (rare,) = federation.groups.minority
    assert federation.tested_counts("test", None).min() >= 150
    assert federation.group_counts(Role.HONEST_MAJORITY, Role.POISONED)[rare] == 0
    assert federation.group_counts(Role.HONEST_MINORITY)[rare] > 0
    rows = [federation.partition.client_rows(c) for c in range(len(federation.population))]
    roles = [federation.population.role(c) for c in range(len(rows))]
    assert len({len(own) for own in rows}) == 1
    assert roles.count(Role.HONEST_MINORITY) == 4


@pytest.mark.parametrize("name", SCENARIOS)
def test_attackers_are_honest_majority_clients_plus_poison(name, data_dir):
    scenario = attacked(name)
    data = dataset(name, data_dir)
    federation = build_federation(scenario, data)
    for client in federation.population.clients(Role.POISONED):
        shard = federation.shard(client)
        rows = federation.partition.client_rows(client)
        clean = ~shard.is_poisoned.numpy()
        assert shard.is_poisoned.sum() == round(scenario.poison.fraction * len(rows))
        assert np.array_equal(shard.labels.numpy()[clean], data.train.labels[rows][clean])
        assert np.array_equal(shard.inputs.numpy()[clean], data.train.unit_inputs(rows)[clean])
        assert set(shard.groups.tolist()).isdisjoint(federation.groups.minority)


def test_writers_are_whole_clients(data_dir):
    federation = build_federation(
        attacked("writers_by_population"), dataset("writers_by_population", data_dir)
    )
    writers = federation.dataset.train.clients
    assert writers is not None
    honest = range(federation.population.honest_majority + federation.population.honest_minority)
    held = [set(writers[federation.partition.client_rows(c)].tolist()) for c in honest]
    # Attackers' source images are exchanged for others, so a few digits of a writer may be there.
    majority, minority = held[: federation.population.honest_majority], held[-4:]
    assert np.median([len(own) for own in majority]) <= 2
    assert 4 <= np.median([len(own) for own in minority]) <= 8
