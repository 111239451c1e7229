"""Builds a scenario's attackers: what they are dealt, what they hold, what they send."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from clients.poisons import rare_examples
from clients.shard import Role, Shard, pooled
from clients.training import train
from fl_testbed.data import Dataset, Federation, Goal, GroupedExamples
from fl_testbed.data.dealing import Wanted
from fl_testbed.data.federation import NOTHING, Learnt, Poison, Restyle
from fl_testbed.engine.adversary_grid import AdversaryGrid, Attackers, Rule, Surroundings
from fl_testbed.engine.evaluation import test_set
from fl_testbed.engine.grid import ClientGrid
from fl_testbed.engine.models import build_model
from fl_testbed.engine.threads import limit_threads
from fl_testbed.scenario import Scenario
from fl_testbed.scenario.poisons import EdgeCaseBackdoorSpec, Plan, Scene
from fl_testbed.scenario.strategy import StrategySpec
from strategies.aggregation import TooFewClientsError
from strategies.pipeline import Pipeline, RoundFacts
from strategies.randomness import Purpose, generator
from strategies.shapes import CPU


def wanted(scenario: Scenario, dataset: Dataset) -> Wanted | None:
    """Return which examples attackers must be dealt. If kinds of attackers want different ones, the
    first kind's wish counts; those who do not share it get ordinary shards."""
    kinds = [kind for kind in scenario.attacker_kinds if kind.count]
    wants = [kind.poison.wanted(dataset.train.labels) for kind in kinds]
    masks = [want[0] for want in wants if want is not None]
    if not masks:
        return None
    shares = [
        want[1] if want is not None and np.array_equal(want[0], masks[0]) else 0.0 for want in wants
    ]
    fractions = np.repeat(shares, [kind.count for kind in kinds])
    return Wanted(masks[0], fractions)


def restyle(scenario: Scenario) -> Restyle | None:
    """Return the function that marks, for an edge case, which clean examples of a client look like
    the minority's; None if no poison is an edge case."""
    for poison in scenario.named_poisons.values():
        if isinstance(poison, EdgeCaseBackdoorSpec):
            source, held_by, fraction = poison.rarity()
            return partial(rare_examples, source=source, held_by=held_by, held_fraction=fraction)
    return None


class AttackersPoison(Poison):
    """The poisons of all kinds of attackers, each made from what its attackers know."""

    def __init__(self, scenario: Scenario, federation: Federation) -> None:
        self._scenario, self._federation = scenario, federation
        self._own: dict[int, tuple[str, int]] = {}
        self._plans: dict[str, Plan] = {}
        for name, poison in scenario.named_poisons.items():
            clients = scenario.attackers_with(name)
            plan = poison.build(_scene(clients, scenario, federation))
            if plan is not None:
                self._plans[name] = plan
                self._own |= {client: (name, place) for place, client in enumerate(clients)}

    def __call__(
        self, shard: Shard, client: int, rng: np.random.Generator, learnt: Learnt
    ) -> Shard:
        """Poison the shard of an attacker, if it has a poison."""
        if client not in self._own:
            return shard
        name, among_its_kind = self._own[client]
        plan = self._plans[name]
        return plan.poisoned(shard, among_its_kind, rng, learnt.get(name, plan.at_first))

    def goals(self, test: GroupedExamples, learnt: Learnt = NOTHING) -> dict[str, Goal]:
        """Return what each poison is after, by its name."""
        goals = {
            name: plan.aim(test, learnt.get(name, plan.at_first))
            for name, plan in self._plans.items()
        }
        return {name: goal for name, goal in goals.items() if goal is not None}

    def learn(
        self,
        round_: int,
        clients: Sequence[int],
        received: Mapping[str, Tensor],
        learnt: Learnt,
        device: torch.device,
    ) -> Learnt:
        """Let attackers learn from the model that clients are about to receive.

        For each poison, the first client that attacks with it in this round learns for all others
        that have it, on its own clean data.
        """
        there = set(clients)
        for name, plan in self._plans.items():
            if plan.learn is None or plan.at_first is None:
                continue
            client = self._first_active(name, round_, there)
            if client is None:
                continue
            model = build_model(self._scenario, self._federation.dataset).to(device)
            model.load_state_dict(received)
            shard = self._federation.clean_shard(client).to(device)
            settings = self._scenario.training_in(round_)
            rng = generator(self._scenario.seed, Purpose.LEARNT_TRIGGER, round_, client)
            found = plan.learn(learnt.get(name, plan.at_first), model, shard, settings, rng)
            learnt = {**learnt, name: found.cpu()}
        return learnt

    def _first_active(self, poison: str, round_: int, there: AbstractSet[int]) -> int | None:
        active = (
            kind.clients
            for kind in self._scenario.attacker_kinds
            if kind.poison_name == poison and kind.schedule.build().is_active(round_)
        )
        return next((client for ids in active for client in ids if client in there), None)


def _scene(attackers: Sequence[int], scenario: Scenario, federation: Federation) -> Scene:
    """Return what attackers that share a poison can use to plan it."""
    return Scene(
        dataset=federation.dataset,
        groups=federation.groups,
        seed=scenario.seed,
        n_attackers=len(attackers),
        held=lambda: pooled([federation.clean_shard(a) for a in attackers], Role.POISONED),
        train=partial(train_surrogate, scenario, federation.dataset),
        test=lambda: federation.majority(test_set(scenario, federation)),
    )


def train_surrogate(scenario: Scenario, dataset: Dataset, shard: Shard, epochs: int) -> nn.Module:
    """Train the initial global model on what attackers hold, and return it."""
    limit_threads(scenario.torch_threads)
    model = build_model(scenario, dataset)
    settings = replace(scenario.training.build(), local_epochs=epochs, local_steps=None)
    train(model, shard, settings, generator(scenario.seed, Purpose.POISON_PLAN, 1))
    return model


def with_attackers(
    grid: ClientGrid,
    scenario: Scenario,
    buffers: frozenset[str] = frozenset(),
    device: torch.device = CPU,
) -> ClientGrid:
    """Put the scenario's attackers around a grid, if they do anything to updates.

    Args:
        grid: Runs the clients, all of which send their updates unchanged.
        scenario: Says who attacks, and how.
        buffers: Names of the model's arrays that are no parameters: attackers send these unchanged.
        device: Where attacks compute.
    """
    kinds = [
        Attackers(
            clients=kind.clients,
            attack=attack,
            knowledge=kind.attack.seen,
            schedule=kind.schedule.build(),
            samples_everybody=kind.attack.samples_everybody,
        )
        for kind in scenario.attacker_kinds
        if kind.clients and (attack := kind.attack.build()) is not None
    ]
    if not kinds:
        return grid
    population = scenario.clients.population
    knows_rule = any(kind.attack.knows_defence for kind in scenario.attacker_kinds)
    surroundings = Surroundings(
        attackers=population.clients(Role.POISONED),
        minority=population.clients(Role.HONEST_MINORITY),
        n_assumed=scenario.told_strategy.n_assumed,
        rule=known_rule(scenario) if knows_rule else None,
        seed=scenario.seed,
    )
    return AdversaryGrid(grid, kinds, surroundings, buffers, device)


def known_rule(scenario: Scenario) -> Rule:
    """Return the server's pre-aggregations and rule as one function of updates, for attackers who
    know them."""
    spec, n_sampled = scenario.told_strategy, scenario.n_sampled
    assert isinstance(spec, StrategySpec)  # attackers cannot foresee Flower's own strategies
    mixers = spec.build_pre_aggregation(n_sampled)
    pipeline = Pipeline(spec.aggregation.build(n_sampled), pre_aggregate=mixers)

    def rule(
        updates: Tensor,
        *,
        round_: int,
        received: Tensor,
        layers: Mapping[str, slice],
        rng: np.random.Generator,
    ) -> Tensor:
        facts = RoundFacts.of_equals(
            len(updates), rng, round_=round_, received=lambda: received, layers=layers
        )
        try:
            return pipeline(updates, facts, {}).result.update
        except TooFewClientsError:  # the server skips such a round: a search must not end the run
            return torch.zeros_like(updates[0])

    return rule
