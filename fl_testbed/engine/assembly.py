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
from clients.shard import Shard
from clients.training import train
from fl_testbed.data import DATASETS, Dataset, Federation
from fl_testbed.data.partition import equal_shards, overlapping_shards
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
    load = DATASETS[scenario.dataset.kind]
    return load(data_dir, generator(scenario.seed, Purpose.PARTITION, 0))


def build_federation(scenario: Scenario, dataset: Dataset) -> Federation:
    """Share the dataset out to clients.

    Raises:
        DataError: If there are too few examples.
    """
    clients, population = scenario.clients, scenario.clients.population
    wanted = None
    if isinstance(scenario.poison, DirtyLabelBackdoorSpec) and population.poisoned:
        labels = torch.from_numpy(dataset.train.labels)
        mask = is_source(labels, scenario.poison.source, scenario.poison.target).numpy()
        n_poisoned = round(scenario.poison.fraction * clients.examples_each)
        wanted = (population.poisoned, n_poisoned, mask)
    sizes = (
        len(population),
        clients.examples_each,
        scenario.server_data.n_examples,
        len(dataset.train),
    )
    if clients.overlap:
        partition = overlapping_shards(*sizes, scenario.seed, wanted)
    else:
        partition = equal_shards(*sizes, generator(scenario.seed, Purpose.PARTITION, 1), wanted)
    minority = scenario.dataset.minority
    return Federation(
        dataset=dataset,
        partition=partition,
        population=population,
        group_names=minority.group_names,
        minority=minority.build(),
        poison=scenario.poison.build(),
        seed=scenario.seed,
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
            data = self._scenario.server_data
            n_minority = round(data.minority_fraction * data.n_examples)
            shard = self._federation.server_shard(n_minority)
            self._ready = build_model(self._scenario, self._federation.dataset), shard
        model, shard = self._ready
        model.load_state_dict(state_dict_of(arrays))
        return model, shard
