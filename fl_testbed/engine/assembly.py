"""From a scenario to the parts of a run: federation, ClientApp, strategy, evaluation."""

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord
from flwr.clientapp import ClientApp
from torch import nn

from clients.app import ShardClientApp
from clients.poisons import is_source
from clients.shard import Role, Shard
from clients.training import train
from fl_testbed.data import DataError, Dataset, Federation, Groups
from fl_testbed.data.dealing import Wanted
from fl_testbed.data.groups import OwnGroups, group_index
from fl_testbed.data.partition import Division, disjoint_shards, overlapping_shards
from fl_testbed.scenario import Scenario
from fl_testbed.scenario.parts import DirtyLabelBackdoorSpec
from strategies.flower_arrays import state_dict_of
from strategies.randomness import Purpose, generator
from strategies.robust import RobustFedAvg

CACHED_SHARDS = 256


def load_dataset(scenario: Scenario, data_dir: Path | None) -> Dataset:
    """Load the scenario's dataset.

    Raises:
        DataError: If its files are not there or are broken.
    """
    return scenario.dataset.load(data_dir, generator(scenario.seed, Purpose.PARTITION, 0))


def build_federation(scenario: Scenario, dataset: Dataset) -> Federation:
    """Share the dataset out to clients.

    Raises:
        DataError: If there are too few examples, or they do not have what the scenario names.
    """
    groups = scenario.dataset.minority.build(dataset)
    division = _division(scenario, dataset, groups)
    labels, partition = dataset.train.labels, scenario.partition
    if scenario.clients.overlap:
        alpha = getattr(partition, "alpha", None)
        shares = overlapping_shards(division, alpha, labels, scenario.seed)
    else:
        rng = generator(scenario.seed, Purpose.PARTITION, 1)
        natural_clients = dataset.train.clients
        shares = disjoint_shards(division, partition.build(), labels, natural_clients, rng)
    return Federation(
        dataset=dataset,
        groups=groups,
        division=division,
        partition=shares,
        poison=scenario.poison.build(dataset),
        seed=scenario.seed,
    )


def _division(scenario: Scenario, dataset: Dataset, groups: Groups) -> Division:
    clients, population = scenario.clients, scenario.clients.population
    for key, text in scenario.poison_contradictions(dataset.n_classes):
        raise DataError(f"{key} {text}")
    if population.honest_minority and not groups.minority:
        raise DataError(
            f"no group of {dataset.name} is so small that it is a minority: name some in "
            "dataset.minority.groups, or set clients.honest_minority to 0"
        )
    wanted = None
    if isinstance(scenario.poison, DirtyLabelBackdoorSpec) and population.poisoned:
        labels = torch.from_numpy(dataset.train.labels)
        mask = is_source(labels, scenario.poison.source, scenario.poison.target).numpy()
        wanted = Wanted(mask, scenario.poison.fraction)
    minority_mix = None
    if clients.minority_mix is not None:
        minority_mix = {
            group_index(groups, name, "clients.minority_mix"): share
            for name, share in clients.minority_mix.items()
        }
    server, hold = scenario.server_data, clients.poisoned_hold
    return Division(
        population=population,
        examples_each=clients.examples_each,
        groups=groups if isinstance(groups, OwnGroups) else None,
        concentration=clients.minority_concentration,
        minority_mix=minority_mix,
        attackers_hold=Role.HONEST_MAJORITY if hold == "majority" else Role.HONEST_MINORITY,
        wanted=wanted,
        n_server=server.n_examples,
        n_server_minority=round(server.minority_fraction * server.n_examples),
        n_validation=scenario.evaluation.n_validation,
        by_natural_client=scenario.partition.by_natural_client,
    )


def build_model(scenario: Scenario, dataset: Dataset) -> nn.Module:
    """Return the scenario's model, initialised from its seed alone."""
    seed = int(generator(scenario.seed, Purpose.MODEL).integers(2**63))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return scenario.model.build(dataset)


def build_client_app(scenario: Scenario, federation: Federation) -> ClientApp:
    """Return the ClientApp that trains the federation's shards."""
    shards: dict[int, Shard] = {}

    def shard_of(client: int) -> Shard:
        if client not in shards:
            if len(shards) >= CACHED_SHARDS:
                shards.pop(next(iter(shards)))
            shards[client] = federation.shard(client)
        return shards[client]

    return ShardClientApp(
        shard_of,
        partial(build_model, scenario, federation.dataset),
        scenario.training.build(),
        scenario.seed,
        scenario.training.cohort,
    )


def build_strategy(scenario: Scenario, federation: Federation) -> RobustFedAvg:
    """Return the Flower strategy; the engine samples clients, so it takes all it is shown."""
    spec = scenario.strategy
    server = ServerData(scenario, federation)
    return RobustFedAvg(
        spec.build_aggregation(scenario.n_sampled),
        pre_aggregate=spec.build_pre_aggregation(scenario.n_sampled),
        reweight=spec.reweighting.build(federation.population, scenario.training.build()),
        order=spec.order,
        n_examples=federation.partition.size,
        weight_by=spec.weight_by,
        server_update=server.train,
        server_evaluate=server.evaluate,
        seed=scenario.seed,
        on_too_few=spec.on_too_few,
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=1,
        min_evaluate_nodes=0,
        min_available_nodes=1,
    )


class ServerData:
    """The server's own data: it trains on them as a client would, and judges models by them."""

    def __init__(self, scenario: Scenario, federation: Federation) -> None:
        self._scenario, self._federation = scenario, federation
        self._ready: tuple[nn.Module, Shard] | None = None

    def train(self, arrays: ArrayRecord, server_round: int) -> ArrayRecord:
        """Return the arrays after training."""
        model, shard = self._load(arrays)
        rng = generator(self._scenario.seed, Purpose.SERVER_TRAINING, server_round)
        train(model, shard, self._scenario.training.build(), rng)
        return ArrayRecord(model.state_dict())

    @torch.no_grad()
    def evaluate(self, arrays: ArrayRecord) -> tuple[float, float]:
        """Return the error rate and the mean loss."""
        model, shard = self._load(arrays)
        model.eval()
        logits = model(shard.inputs)
        wrong = logits.argmax(dim=1) != shard.labels
        return wrong.double().mean().item(), F.cross_entropy(logits, shard.labels).item()

    def _load(self, arrays: ArrayRecord) -> tuple[nn.Module, Shard]:
        if self._ready is None:
            shard = self._federation.server_shard()
            self._ready = build_model(self._scenario, self._federation.dataset), shard
        model, shard = self._ready
        model.load_state_dict(state_dict_of(arrays))
        return model, shard
