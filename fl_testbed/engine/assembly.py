"""Builds the parts of a run from its scenario: federation, ClientApp, strategy."""

from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import torch

from clients.app import ShardClientApp, Work
from clients.device_memory import DeviceMemory, HostMemory
from clients.shard import Role
from fl_testbed.data import DataError, Dataset, Federation, Groups
from fl_testbed.data.federation import NOTHING, Learnt, Poison
from fl_testbed.data.groups import OwnGroups, group_index
from fl_testbed.data.partition import Division, Draws, disjoint_shards, overlapping_shards
from fl_testbed.engine.attackers import AttackersPoison, restyle, wanted
from fl_testbed.engine.models import build_model
from fl_testbed.engine.server_data import ServerData
from fl_testbed.engine.shard_cache import ShardCache, cache_bytes
from fl_testbed.scenario import Scenario
from fl_testbed.scenario.flower_strategy import TAKES_ALL, FlowerStrategySpec
from strategies.observed import Observed
from strategies.randomness import Purpose, generator
from strategies.robust import RobustFedAvg
from strategies.shapes import CPU


def build_federation(scenario: Scenario, dataset: Dataset) -> Federation:
    """Distribute the dataset over clients.

    Raises:
        DataError: If there are too few examples, or the dataset lacks something that the scenario
            names.
    """
    groups = scenario.dataset.minority.build(dataset)
    division = _division(scenario, dataset, groups)
    labels, partition = dataset.train.labels, scenario.partition
    if scenario.clients.overlap:
        alpha = getattr(partition, "alpha", None)
        shares = overlapping_shards(division, alpha, labels, scenario.seed)
    else:
        rng = generator(scenario.seed, Purpose.PARTITION, Draws.SHARDS)
        deal = partition.build(dataset.train)
        shares = disjoint_shards(division, deal, labels, dataset.train.clients, rng)
    clean = Federation(
        dataset=dataset,
        groups=groups,
        division=division,
        partition=shares,
        poison=Poison(),
        seed=scenario.seed,
        restyle=restyle(scenario),
    )
    return replace(clean, poison=AttackersPoison(scenario, clean))


def _division(scenario: Scenario, dataset: Dataset, groups: Groups) -> Division:
    clients, population = scenario.clients, scenario.clients.population
    for key, text in scenario.class_contradictions(dataset.n_classes):
        raise DataError(f"{key} {text}")
    if population.honest_minority and isinstance(groups, OwnGroups) and not groups.minority:
        sizes = np.bincount(groups.train, minlength=len(groups.names))
        there = "; ".join(f"{name} ({n:,})" for name, n in zip(groups.names, sizes, strict=True))
        raise DataError(
            f"no group of {dataset.name} is small enough to be a minority, of {there}: name some "
            "in dataset.minority.groups, or set clients.honest_minority to 0"
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
        groups=groups if isinstance(groups, OwnGroups) and groups.minority else None,
        concentration=clients.minority_concentration,
        minority_mix=minority_mix,
        attackers_hold=Role.HONEST_MAJORITY if hold == "majority" else Role.HONEST_MINORITY,
        wanted=wanted(scenario, dataset),
        legacy=clients.legacy_dealing,
        n_server=server.n_examples,
        n_server_minority=round(server.minority_fraction * server.n_examples),
        server_bias=server.bias and (server.bias.label, server.bias.share),
        n_validation=scenario.evaluation.n_validation,
        by_natural_client=scenario.partition.by_natural_client,
    )


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
        federation: Its clients and their shards.
        memory: The memory of the device to train on; the CPU's by default.
        largest_cohort: The most clients to train at once.
        stays_on_device: Whether the tensors of replies stay on that device.
    """
    memory = memory or HostMemory()
    shard_of = ShardCache(
        lambda client, clean: federation.clean_shard(client) if clean else federation.shard(client),
        memory.device,
        cache_bytes(memory.device),
    ).get
    kind_of = {client: kind for kind in scenario.attacker_kinds for client in kind.clients}
    settings_in = lru_cache(maxsize=1)(scenario.training_in)  # the same for all of a round

    def work_of(client: int, round_: int, learnt: Learnt = NOTHING) -> Work:
        kind, settings = kind_of.get(client), settings_in(round_)
        if kind is None:
            return Work(shard_of(client), settings)
        training_attack = kind.training_attack.build()
        keeps_received = training_attack is not None and training_attack.needs_previous
        if not kind.schedule.build().is_active(round_):
            return Work(shard_of(client), settings, keeps_received=keeps_received)
        if kind.poison_name in learnt:  # made anew in each round, so not cached
            shard = federation.shard(client, learnt).to(memory.device)
        else:
            shard = shard_of(client, clean=False)
        return Work(
            shard,
            kind.training.build(settings),
            training_attack,
            shard_of(client) if kind.attack.needs_twin else None,
            keeps_received,
            kind.reported_loss,
        )

    return ShardClientApp(
        shard_of,
        partial(build_model, scenario, federation.dataset),
        scenario.training.build(),
        scenario.seed,
        largest_cohort,
        work_of,
        memory,
        None if scenario.local_method is None else scenario.local_method.build(),
        stays_on_device=stays_on_device,
    )


def build_strategy(
    scenario: Scenario,
    federation: Federation,
    buffers: frozenset[str],
    device: torch.device = CPU,
) -> RobustFedAvg | Observed:
    """Return the Flower strategy. The engine samples clients, so the strategy takes all it sees.

    Args:
        scenario: The scenario.
        federation: Its clients.
        buffers: Names of the model's arrays that are no parameters.
        device: Where the server computes.
    """
    spec = scenario.told_strategy
    if isinstance(spec, FlowerStrategySpec):
        return Observed(
            spec.build(),
            weight_by=spec.weight_by,
            leave_one_out=spec.leave_one_out,
            seed=scenario.seed,
            buffers=buffers,
        )
    server = ServerData(scenario, federation, device)
    return RobustFedAvg(
        spec.aggregation.build(scenario.n_sampled),
        pre_aggregate=spec.build_pre_aggregation(scenario.n_sampled),
        reweight=spec.reweighting.build(scenario.training.build(), federation.holdings),
        optimize=None if spec.server_optimizer is None else spec.server_optimizer.bind(),
        oracle=spec.oracle.build(federation.population),
        losses=spec.losses,
        order=spec.order,
        n_examples=federation.partition.size,
        weight_by=spec.weight_by,
        server_update=server.train,
        server_evaluate=server.evaluate,
        server_respond=server.respond,
        server_represent=server.represent,
        seed=scenario.seed,
        on_too_few=spec.on_too_few,
        device=device,
        keep_mib=spec.keep_mib,
        buffers=buffers,
        averages_metrics=False,  # the engine reads the ledger
        **TAKES_ALL,
    )
