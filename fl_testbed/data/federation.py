"""A dataset shared out to clients, each with its role."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from clients.shard import Role, Shard
from fl_testbed.data.dataset import Dataset
from fl_testbed.data.partition import Partition
from strategies.randomness import Purpose, generator
from strategies.shapes import Tensor

ImageTransform = Callable[[np.ndarray], np.ndarray]
Poison = Callable[[Shard, int, np.random.Generator], Shard]
"""Turns the clean shard of an attacker, the how-manieth from 0, into what it trains on."""

MAJORITY, MINORITY = 0, 1


@dataclass(frozen=True)
class Population:
    """How many clients there are of each role. Client ids run through the roles in this order."""

    honest_majority: int
    honest_minority: int
    poisoned: int

    def __len__(self) -> int:
        return self.honest_majority + self.honest_minority + self.poisoned

    def role(self, client: int) -> Role:
        """Return a client's role."""
        if client < self.honest_majority:
            return Role.HONEST_MAJORITY
        if client < self.honest_majority + self.honest_minority:
            return Role.HONEST_MINORITY
        return Role.POISONED

    def clients(self, role: Role) -> range:
        """Return the ids of a role's clients."""
        first_minority = self.honest_majority
        first_poisoned = first_minority + self.honest_minority
        return {
            Role.HONEST_MAJORITY: range(first_minority),
            Role.HONEST_MINORITY: range(first_minority, first_poisoned),
            Role.POISONED: range(first_poisoned, len(self)),
        }[role]


@dataclass(frozen=True)
class TestSet:
    """What the global model is tested on; groups index into the federation's group names."""

    inputs: Tensor
    labels: Tensor
    groups: Tensor


@dataclass(frozen=True)
class Federation:
    """Who holds what. Shards are made when asked for, so many clients cost little."""

    dataset: Dataset
    partition: Partition
    population: Population
    group_names: tuple[str, ...]
    minority: ImageTransform
    """Turns a majority image into a minority one."""
    poison: Poison | None
    seed: int

    def shard(self, client: int) -> Shard:
        """Return what a client trains on."""
        shard = self.clean_shard(client)
        if shard.role is Role.POISONED and self.poison is not None:
            attacker = client - self.population.clients(Role.POISONED)[0]
            shard = self.poison(shard, attacker, generator(self.seed, Purpose.POISON, client))
        return shard

    def clean_shard(self, client: int) -> Shard:
        """Return what a client would train on if nobody attacked."""
        role = self.population.role(client)
        group = MINORITY if role is Role.HONEST_MINORITY else MAJORITY
        return self._shard(self.partition.client_rows(client), group, role)

    def server_shard(self, n_minority: int) -> Shard:
        """Return the server's own data, the first ``n_minority`` of it in minority style."""
        rows = self.partition.server
        parts = [
            self._shard(rows[:n_minority], MINORITY, Role.HONEST_MINORITY),
            self._shard(rows[n_minority:], MAJORITY, Role.HONEST_MAJORITY),
        ]
        joined = [torch.cat(tensors) for tensors in zip(*(part[:4] for part in parts), strict=True)]
        return Shard(*joined, role=Role.HONEST_MAJORITY)

    def test_set(self, max_examples: int | None) -> TestSet:
        """Return the test images twice: as the majority sees them, and as the minority does."""
        rows = slice(0, max_examples)
        plain = self.dataset.test.unit_inputs(rows)
        labels = torch.from_numpy(self.dataset.test.labels[rows].copy())
        return TestSet(
            inputs=torch.from_numpy(np.concatenate([plain, self.minority(plain)])),
            labels=labels.repeat(2),
            groups=torch.tensor([MAJORITY, MINORITY]).repeat_interleave(len(labels)),
        )

    def group_counts(self) -> dict[str, int]:
        """Return how many training examples honest clients hold of each group."""
        counts = dict.fromkeys(self.group_names, 0)
        for role, group in ((Role.HONEST_MAJORITY, MAJORITY), (Role.HONEST_MINORITY, MINORITY)):
            clients = self.population.clients(role)
            counts[self.group_names[group]] += sum(self.partition.size(c) for c in clients)
        return counts

    def _shard(self, rows: np.ndarray, group: int, role: Role) -> Shard:
        inputs = self.dataset.train.unit_inputs(rows)
        if group == MINORITY:
            inputs = self.minority(inputs)
        return Shard(
            inputs=torch.from_numpy(inputs),
            labels=torch.from_numpy(self.dataset.train.labels[rows]),
            groups=torch.full((len(rows),), group),
            is_poisoned=torch.zeros(len(rows), dtype=torch.bool),
            role=role,
        )
