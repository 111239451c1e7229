"""From a scenario to the parts of a run: federation, ClientApp, strategy, evaluation."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord
from torch import Tensor, nn

from clients.app import ShardClientApp, Work
from clients.device_memory import DeviceMemory, HostMemory
from clients.poisons import rare_examples
from clients.shard import Role, Shard, pooled
from clients.training import train
from fl_testbed.data import DataError, Dataset, Federation, Goal, Groups, TestSet
from fl_testbed.data.dealing import Wanted
from fl_testbed.data.federation import Restyle
from fl_testbed.data.groups import OwnGroups, group_index
from fl_testbed.data.partition import Division, disjoint_shards, overlapping_shards
from fl_testbed.engine.adversary_grid import AdversaryGrid, Attackers, Rule, Surroundings
from fl_testbed.engine.grid import ClientGrid
from fl_testbed.engine.shard_cache import ShardCache, cache_bytes
from fl_testbed.engine.threads import limit_threads
from fl_testbed.scenario import AnyScenario, Scenario
from fl_testbed.scenario.flower_strategy import TAKES_ALL, FlowerStrategySpec
from fl_testbed.scenario.methods import StrategySpec
from fl_testbed.scenario.models import OwnModelSpec
from fl_testbed.scenario.poisons import EdgeCaseBackdoorSpec, Plan, Scene
from strategies.flower_arrays import state_dict_of
from strategies.observed import Observed
from strategies.pipeline import Pipeline, RoundFacts
from strategies.randomness import Purpose, generator
from strategies.robust import CPU, RobustFedAvg


def load_dataset(scenario: AnyScenario, data_dir: Path | None) -> Dataset:
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
    clean = Federation(
        dataset=dataset,
        groups=groups,
        division=division,
        partition=shares,
        poison=None,
        seed=scenario.seed,
        restyle=_restyle(scenario),
    )
    return replace(clean, poison=AttackersPoison(scenario, clean))


def _division(scenario: Scenario, dataset: Dataset, groups: Groups) -> Division:
    clients, population = scenario.clients, scenario.clients.population
    for key, text in scenario.class_contradictions(dataset.n_classes):
        raise DataError(f"{key} {text}")
    if population.honest_minority and not groups.minority:
        raise DataError(
            f"no group of {dataset.name} is so small that it is a minority: name some in "
            "dataset.minority.groups, or set clients.honest_minority to 0"
        )
    minority_mix = None
    if clients.minority_mix is not None:
        minority_mix = {
            group_index(groups.names, name, "clients.minority_mix"): share
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
        wanted=_wanted(scenario, dataset),
        n_server=server.n_examples,
        n_server_minority=round(server.minority_fraction * server.n_examples),
        n_validation=scenario.evaluation.n_validation,
        by_natural_client=scenario.partition.by_natural_client,
    )


def _wanted(scenario: Scenario, dataset: Dataset) -> Wanted | None:
    """Return what attackers must be dealt. Where they want different kinds of examples, those who
    do not want what the first of them wants get whatever comes."""
    kinds = [kind for kind in scenario.attacker_kinds if kind.count]
    wants = [kind.poison and kind.poison.wanted(dataset.train.labels) for kind in kinds]
    masks = [want[0] for want in wants if want is not None]
    if not masks:
        return None
    shares = [
        want[1] if want is not None and np.array_equal(want[0], masks[0]) else 0.0 for want in wants
    ]
    fractions = np.repeat(shares, [kind.count for kind in kinds])
    # Who else holds the rare class is what an edge case is about.
    spares_honest = any(isinstance(kind.poison, EdgeCaseBackdoorSpec) for kind in kinds)
    return Wanted(masks[0], fractions, spares_honest)


def _restyle(scenario: Scenario) -> Restyle | None:
    """Return which examples an edge case lets honest clients hold as the minority has them."""
    for poison in scenario.named_poisons.values():
        if isinstance(poison, EdgeCaseBackdoorSpec):
            source, held_by, fraction = poison.rarity()
            return partial(rare_examples, source=source, held_by=held_by, held_fraction=fraction)
    return None


class AttackersPoison:
    """The poisons of all kinds of attackers, each made from what its attackers know."""

    def __init__(self, scenario: Scenario, federation: Federation) -> None:
        clients = scenario.attackers_by_poison
        self._own = {
            client: (name, place)
            for name, ids in clients.items()
            for place, client in enumerate(ids)
        }
        self._plans: dict[str, Plan] = {}
        for name, poison in scenario.named_poisons.items():
            plan = poison.build(_scene(clients[name], scenario, federation))
            if plan is not None:
                self._plans[name] = plan

    def __call__(self, shard: Shard, client: int, rng: np.random.Generator) -> Shard:
        """Poison the shard of an attacker, if it has a poison."""
        if client not in self._own:
            return shard
        name, among_its_kind = self._own[client]
        return self._plans[name].poison(shard, among_its_kind, rng)

    def goals(self, test: TestSet) -> dict[str, Goal]:
        """Return what each poison is after, by its name."""
        goals = {name: plan.goal(test) for name, plan in self._plans.items()}
        return {name: goal for name, goal in goals.items() if goal is not None}


def _scene(attackers: Sequence[int], scenario: Scenario, federation: Federation) -> Scene:
    """Return what attackers with a poison in common can plan it with."""
    return Scene(
        dataset=federation.dataset,
        groups=federation.groups,
        seed=scenario.seed,
        n_attackers=len(attackers),
        held=lambda: pooled([federation.clean_shard(a) for a in attackers], Role.POISONED),
        surrogate=partial(train_surrogate, scenario, federation.dataset),
        test=lambda: federation.majority(test_set(scenario, federation)),
    )


def train_surrogate(scenario: Scenario, dataset: Dataset, shard: Shard, epochs: int) -> nn.Module:
    """Return the model that clients are sent first, trained on what attackers hold."""
    limit_threads(scenario.torch_threads)
    model = build_model(scenario, dataset)
    settings = replace(scenario.training.build(), local_epochs=epochs, local_steps=None)
    train(model, shard, settings, generator(scenario.seed, Purpose.POISON_PLAN, 1))
    return model


def test_set(scenario: Scenario, federation: Federation) -> TestSet:
    """Return what the global model is tested on."""
    if scenario.evaluation.split == "validation":
        return federation.validation_set()
    return federation.test_set(scenario.evaluation.max_examples)


def build_model(scenario: Scenario, dataset: Dataset) -> nn.Module:
    """Return the scenario's model as a run starts: from its seed alone, or trained before.

    Raises:
        InitialModelError: If the trained model that the scenario names is not such a one.
    """
    seed = int(generator(scenario.seed, Purpose.MODEL).integers(2**63))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = scenario.model.build(dataset)
    if scenario.init is not None:
        scenario.init.load_into(model)
    return model.to(memory_format=torch.channels_last)  # as clients hold it: faster on a CPU


def outlined_model(scenario: Scenario, dataset: Dataset) -> nn.Module:
    """Return the scenario's model, to look at its shapes: without numbers, which may not fit.

    Raises:
        InitialModelError: If the trained model that the scenario names is not such a one.
    """
    if scenario.init is not None or isinstance(scenario.model, OwnModelSpec):
        return build_model(scenario, dataset)  # code of a user's may need numbers
    with torch.device("meta"):
        return scenario.model.build(dataset)


def build_client_app(
    scenario: Scenario,
    federation: Federation,
    memory: DeviceMemory | None = None,
    largest_cohort: int = 1,
    *,
    stays_on_device: bool = False,
) -> ShardClientApp:
    """Return the ClientApp that trains the federation's shards.

    Args:
        scenario: The scenario.
        federation: Its clients.
        memory: Of the device to train on; the CPU's by default.
        largest_cohort: The most clients to train at once.
        stays_on_device: Whether replies hold tensors of that device.
    """
    memory = memory or HostMemory()
    shard_of = ShardCache(
        lambda client, clean: federation.clean_shard(client) if clean else federation.shard(client),
        memory.device,
        cache_bytes(memory.device),
    ).get
    settings = scenario.training.build()
    kind_of = {client: kind for ids, kind in scenario.attackers_by_id for client in ids}

    def work_of(client: int, round_: int) -> Work | None:
        kind = kind_of.get(client)
        if kind is None:
            return None
        training_attack = kind.training_attack.build()
        keeps_received = training_attack is not None and training_attack.needs_previous
        if not kind.schedule.build().is_active(round_):
            return Work(shard_of(client), settings, keeps_received=keeps_received)
        return Work(
            shard_of(client, clean=False),
            kind.training.build(settings),
            training_attack,
            shard_of(client) if kind.attack.needs_twin else None,
            keeps_received,
            kind.reported_loss,
        )

    return ShardClientApp(
        shard_of,
        partial(build_model, scenario, federation.dataset),
        settings,
        scenario.seed,
        largest_cohort,
        work_of,
        memory,
        None if scenario.local_method is None else scenario.local_method.build(),
        stays_on_device=stays_on_device,
    )


def with_attackers(grid: ClientGrid, scenario: Scenario, device: torch.device = CPU) -> ClientGrid:
    """Put the scenario's attackers around a grid, if they do anything to updates."""
    kinds = [
        Attackers(
            clients=ids,
            attack=attack,
            knowledge=kind.attack.seen,
            schedule=kind.schedule.build(),
            samples_everybody=kind.attack.samples_everybody,
        )
        for ids, kind in scenario.attackers_by_id
        if ids and (attack := kind.attack.build()) is not None
    ]
    if not kinds:
        return grid
    population = scenario.clients.population
    knows_rule = any(kind.attack.knows_defence for kind in scenario.attacker_kinds)
    surroundings = Surroundings(
        attackers=population.clients(Role.POISONED),
        minority=population.clients(Role.HONEST_MINORITY),
        n_assumed=scenario.strategy.n_assumed,
        rule=known_rule(scenario) if knows_rule else None,
        seed=scenario.seed,
    )
    return AdversaryGrid(grid, kinds, surroundings, device)


def known_rule(scenario: Scenario) -> Rule:
    """Return pre-aggregations and rule, for attackers who know them, on plain updates."""
    spec, n_sampled = scenario.strategy, scenario.n_sampled
    assert isinstance(spec, StrategySpec)  # others cannot be foreseen
    mixers = spec.build_pre_aggregation(n_sampled)
    pipeline = Pipeline(spec.build_aggregation(n_sampled), pre_aggregate=mixers)

    def rule(updates: Tensor, rng: np.random.Generator) -> Tensor:
        n = len(updates)
        facts = RoundFacts(
            round_=0,
            clients=torch.arange(n),
            prior=torch.full((n,), 1 / n, dtype=torch.float64),
            losses=torch.full((n,), torch.nan),
            confidences=torch.full((n,), torch.nan),
            server_update=partial(torch.zeros_like, updates[0]),
            evaluate=lambda update: (math.nan, math.nan),
            rng=rng,
        )
        return pipeline(updates, facts, {}).result.update

    return rule


def build_strategy(
    scenario: Scenario, federation: Federation, device: torch.device = CPU
) -> RobustFedAvg | Observed:
    """Return the Flower strategy; the engine samples clients, so it takes all it is shown."""
    spec = scenario.strategy
    if isinstance(spec, FlowerStrategySpec):
        return Observed(
            spec.build(),
            weight_by=spec.weight_by,
            leave_one_out=spec.leave_one_out,
            seed=scenario.seed,
        )
    server = ServerData(scenario, federation, device)
    return RobustFedAvg(
        spec.build_aggregation(scenario.n_sampled),
        pre_aggregate=spec.build_pre_aggregation(scenario.n_sampled),
        reweight=spec.reweighting.build(scenario.training.build(), federation.holdings),
        oracle=spec.oracle.build(federation.population),
        losses=spec.losses,
        order=spec.order,
        n_examples=federation.partition.size,
        weight_by=spec.weight_by,
        server_update=server.train,
        server_evaluate=server.evaluate,
        seed=scenario.seed,
        on_too_few=spec.on_too_few,
        device=device,
        keep_mib=spec.keep_mib,
        averages_metrics=False,  # the engine reads the ledger
        **TAKES_ALL,
    )


class ServerData:
    """The server's own data: it trains on them as a client would, and judges models by them."""

    def __init__(
        self, scenario: Scenario, federation: Federation, device: torch.device = CPU
    ) -> None:
        self._scenario, self._federation, self._device = scenario, federation, device
        self._ready: tuple[nn.Module, Shard] | None = None

    def train(self, arrays: ArrayRecord, server_round: int) -> ArrayRecord:
        """Return the arrays after training."""
        model, shard = self._load(arrays)
        rng = generator(self._scenario.seed, Purpose.SERVER_TRAINING, server_round)
        train(model, shard, self._scenario.training.build(), rng)
        return ArrayRecord(model.state_dict())  # on the host

    @torch.no_grad()
    def evaluate(self, arrays: ArrayRecord) -> tuple[float, float, float]:
        """Return the error rate, the mean loss and the mean probability of the label."""
        model, shard = self._load(arrays)
        model.eval()
        logits = model(shard.inputs)
        wrong = logits.argmax(dim=1) != shard.labels
        losses = F.cross_entropy(logits, shard.labels, reduction="none")
        confidence = (-losses.double()).exp().mean().item()
        return wrong.double().mean().item(), losses.mean().item(), confidence

    def _load(self, arrays: ArrayRecord) -> tuple[nn.Module, Shard]:
        if self._ready is None:
            shard = self._federation.server_shard().to(self._device)
            model = build_model(self._scenario, self._federation.dataset).to(self._device)
            self._ready = model, shard
        model, shard = self._ready
        model.load_state_dict(state_dict_of(arrays))
        return model, shard
