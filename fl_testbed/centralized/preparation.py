"""Makes a scenario's pool, its poison, and the data that models are tested on."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import nn

from clients.shard import Shard
from fl_testbed.centralized.plan import everything
from fl_testbed.centralized.pool import Pool, attackable, shard_of, with_shard
from fl_testbed.centralized.training import fit
from fl_testbed.data import DataError, Dataset, Examples, Goal, GroupedExamples, Groups
from fl_testbed.data.groups import OwnGroups, group_index
from fl_testbed.engine.models import initialised
from fl_testbed.scenario.centralized import CentralizedScenario, PooledScene
from fl_testbed.scenario.poisons import Plan
from strategies.randomness import Purpose, generator
from strategies.shapes import Int, Tensor

SUBSET, STYLE = 1, 2  # keys of the partition's random numbers
SURROGATE = 1_000  # the surrogate's number among a run's trainings: beyond all stages


@dataclass(frozen=True)
class Material:
    """All that a run starts from."""

    scenario: CentralizedScenario
    dataset: Dataset
    """With the training examples that are used."""
    groups: Groups
    clean: Pool
    test: GroupedExamples

    @cached_property
    def held(self) -> Int[Tensor, " m"]:
        """The rows of the pool that the attacker holds."""
        return attackable(self.clean, self.source_groups)

    @cached_property
    def source_groups(self) -> frozenset[int] | None:
        """The groups that the attacker is confined to; None if it is not."""
        names = self.scenario.attacker.groups
        if names is None:
            return None
        known = self.groups.names
        return frozenset(group_index(known, name, "attacker.groups") for name in names)

    @cached_property
    def poison(self) -> Plan | None:
        """What the attacker does with what it holds."""
        spec = self.scenario.poison
        for key, text in spec.unknown_classes(self.dataset.n_classes):
            raise DataError(f"poison.{key} {text}")
        return spec.build(self._scene())

    @cached_property
    def poisoned(self) -> Pool:
        """The pool as the attacker leaves it."""
        if self.poison is None:
            return self.clean
        rng = generator(self.scenario.seed, Purpose.POISON)
        shard = self.poison.poisoned(shard_of(self.clean, self.held), 0, rng)
        pool = with_shard(self.clean, self.held, shard)
        return replace(pool, annotated=self._annotated(pool.labels))

    @cached_property
    def goal(self) -> Goal | None:
        """The test examples that the attacker wants to be misclassified."""
        return None if self.poison is None else self.poison.goal(self._attacked_test)

    def goal_of(self, group: int) -> Goal | None:
        """Return one group's part of the goal; None if the goal cannot be divided by group."""
        test = self._attacked_test
        if self.poison is None:
            return None
        try:
            return self.poison.goal(test.where(test.groups == group))
        except DataError:  # victims are drawn from all groups together
            return None

    def annotated_as(self, group: int, label: int) -> int:
        """Return the group that an annotator would give an example of ``group`` with ``label``."""
        if not isinstance(self.groups, OwnGroups):
            return group
        rows = np.flatnonzero(self.groups.train == group)[:1]
        if not len(rows):
            return group
        labels = self.dataset.train.labels.copy()
        labels[rows] = label
        return int(self._codes(replace(self.dataset.train, labels=labels))[rows[0]])

    @property
    def _attacked_test(self) -> GroupedExamples:
        test = self.test
        attacked = set(range(len(self.groups.names))) - set(self.groups.minority)
        if self.source_groups is not None:
            attacked &= self.source_groups
        return test.where(torch.isin(test.groups, torch.tensor(sorted(attacked))))

    def _annotated(self, labels: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        if not isinstance(self.groups, OwnGroups):
            return self.clean.groups
        relabelled = replace(self.dataset.train, labels=labels.numpy())
        return torch.from_numpy(self._codes(relabelled))

    def _codes(self, train: Examples) -> np.ndarray:
        groups = self.scenario.dataset.minority.build(replace(self.dataset, train=train))
        assert isinstance(groups, OwnGroups)
        return groups.train

    def _scene(self) -> PooledScene:
        clean, rows = self.clean, self.held
        return PooledScene(
            dataset=self.dataset,
            groups=self.groups,
            seed=self.scenario.seed,
            n_attackers=1,
            held=lambda: shard_of(clean, rows),
            train=self._train_surrogate,
            test=lambda: self._attacked_test,
            everything=shard_of(clean, torch.arange(len(clean))),
            is_minority=clean.is_minority,
        )

    def _train_surrogate(self, shard: Shard, epochs: int) -> nn.Module:
        """Return the attacker's own model, trained on some examples."""
        model = model_of(self.scenario, self.dataset, SURROGATE)
        none = torch.zeros(len(shard.labels), dtype=torch.bool)
        pool = Pool(shard.inputs, shard.labels, shard.groups, shard.groups, none, none)
        rng = generator(self.scenario.seed, Purpose.POISON_PLAN, SURROGATE)
        fit(model, pool, everything(len(pool)), self.scenario.training.build(epochs), rng)
        return model


def prepare(scenario: CentralizedScenario, dataset: Dataset) -> Material:
    """Return what a run starts from; the poison is made when it is asked for.

    Raises:
        DataError: If the dataset does not have what the scenario names.
    """
    train = dataset.train
    n_used = scenario.n_examples
    if n_used is not None and n_used < len(train):
        order = generator(scenario.seed, Purpose.PARTITION, SUBSET).permutation(len(train))
        train = train.take(np.sort(order[:n_used]))
    dataset = replace(dataset, train=train)
    groups = scenario.dataset.minority.build(dataset)
    n = len(train)
    restyled = np.zeros(n, dtype=bool)
    if not isinstance(groups, OwnGroups):
        order = generator(scenario.seed, Purpose.PARTITION, STYLE).permutation(n)
        restyled[order[: round(scenario.minority_fraction * n)]] = True
    dressed = groups.dress(train, np.arange(n), restyled)
    minority = torch.tensor(sorted(groups.minority), dtype=torch.int64)
    clean = Pool(
        *dressed,
        annotated=dressed.groups,
        is_minority=torch.isin(dressed.groups, minority),
        is_poisoned=torch.zeros(n, dtype=torch.bool),
    )
    test = groups.test_examples(dataset.test, scenario.evaluation.max_examples)
    return Material(scenario, dataset, groups, clean, test)


def model_of(scenario: CentralizedScenario, dataset: Dataset, training: int) -> nn.Module:
    """Return the model that a training starts from: initialised by the seed and the training's
    number, or, where the scenario names a trained model, that one for every training.

    Raises:
        InitialModelError: If the named model does not fit.
    """
    return initialised(scenario, dataset, generator(scenario.seed, Purpose.MODEL, training))
