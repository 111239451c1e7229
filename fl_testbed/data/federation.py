"""A dataset shared out to clients, each with its role."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import torch

from clients.shard import Role, Shard
from fl_testbed.data.dataset import Dataset
from fl_testbed.data.groups import GroupedExamples, Groups, OwnGroups
from fl_testbed.data.partition import Division, Draws, Partition
from fl_testbed.data.population import Population
from strategies.randomness import Purpose, generator
from strategies.shapes import Tensor


class Goal(NamedTuple):
    """Test examples that attackers want to be misclassified."""

    inputs: Tensor
    """As the attack shows them to the model, stamped for instance."""
    labels: Tensor
    """Their true classes."""
    target: int
    """The class that attackers want to be predicted."""
    unstamped: Tensor | None = None
    """The same inputs before attackers changed them; None if they do not change any."""


Learnt = Mapping[str, Tensor]
"""What attackers have learnt from the models they received, by the name of their poison."""
NOTHING: Learnt = MappingProxyType({})


class Poison:
    """What attackers do to their data, and what they aim at with it: nothing by default."""

    def __call__(
        self, shard: Shard, client: int, rng: np.random.Generator, learnt: Learnt
    ) -> Shard:
        """Turn an attacker's clean shard into the one that it trains on."""
        return shard

    def goals(self, test: GroupedExamples, learnt: Learnt = NOTHING) -> Mapping[str, Goal]:
        """Return, by poison, the majority's test examples that show whether it worked."""
        return {}

    def learn(
        self,
        round_: int,
        clients: Sequence[int],
        received: Mapping[str, Tensor],
        learnt: Learnt,
        device: torch.device,
    ) -> Learnt:
        """Return what attackers have learnt after they have received a round's model."""
        return learnt


Restyle = Callable[[Tensor, Tensor, Role], Tensor]
"""Changes which examples of a client are in the minority's style. It is given a mask of those that
are, the labels and the client's role, and returns a new mask."""


@dataclass(frozen=True)
class Federation:
    """Who holds which examples. Shards are made when asked for, so many clients cost little."""

    dataset: Dataset
    groups: Groups
    division: Division
    partition: Partition
    poison: Poison
    seed: int
    restyle: Restyle | None = None
    """Set where attackers decide which honest clients hold examples in the minority's style."""

    @property
    def population(self) -> Population:
        """The clients by role."""
        return self.division.population

    @property
    def group_names(self) -> tuple[str, ...]:
        """What the groups are called."""
        return self.groups.names

    def shard(self, client: int, learnt: Learnt = NOTHING) -> Shard:
        """Return the examples that a client trains on, given what attackers have learnt."""
        shard = self.clean_shard(client)
        if shard.role is Role.POISONED:
            rng = generator(self.seed, Purpose.POISON, client)
            shard = self.poison(shard, client, rng, learnt)
        return shard

    def clean_shard(self, client: int) -> Shard:
        """Return the examples that a client would train on if nobody attacked."""
        rows = self.partition.client_rows(client)
        examples = self.groups.dress(self.dataset.train, rows, self._restyled(client))
        return _shard(examples, self.population.role(client))

    def server_shard(self) -> Shard:
        """Return the server's own data, minority examples first."""
        rows = self.partition.server
        restyled = np.arange(len(rows)) < self.division.n_server_minority
        # What no honest client may hold, the server does not hold either.
        restyled = self._as_attackers_decide(restyled, rows, Role.HONEST_MINORITY)
        return _shard(self.groups.dress(self.dataset.train, rows, restyled), Role.HONEST_MAJORITY)

    def test_set(self, max_examples: int | None) -> GroupedExamples:
        """Return the first test examples; where groups are styles, each example in every style."""
        return self.groups.test_examples(self.dataset.test, max_examples)

    def majority(self, test: GroupedExamples) -> GroupedExamples:
        """Return the test examples that are of no minority group."""
        minority = torch.tensor(sorted(self.groups.minority), dtype=torch.int64)
        return test.where(~torch.isin(test.groups, minority))

    def validation_set(self) -> GroupedExamples:
        """Return the training examples that nobody trains on, in the form of a test set."""
        train, rows = self.dataset.train, self.partition.validation
        if isinstance(self.groups, OwnGroups):
            return self.groups.dress(train, rows, np.zeros(len(rows), dtype=bool))
        return self.groups.test_examples(train.take(rows), None)

    def group_counts(self, *roles: Role) -> np.ndarray:
        """Return how many training examples clients of some roles hold of each group."""
        return np.sum([self._counts(role) for role in roles], axis=0)

    def holdings(self) -> Tensor:
        """Return how many training examples of each group every client holds, (clients, groups)."""
        cells = self.cell_counts(range(len(self.population)))
        by_group = cells.reshape(len(cells), len(self.group_names), self.dataset.n_classes)
        return torch.from_numpy(by_group.sum(axis=2))

    def tested_counts(
        self, split: Literal["test", "validation"], max_examples: int | None
    ) -> np.ndarray:
        """Return how many examples of each group models are tested on."""
        tested = (
            self.groups.test_groups(self.dataset.test, max_examples)
            if split == "test"
            else self.validation_set().groups.numpy()
        )
        return np.bincount(tested, minlength=len(self.group_names))

    def cell_counts(self, clients: Iterable[int]) -> np.ndarray:
        """Return how many clean examples of each group and class some clients hold.

        Shape (clients, groups × classes), groups outermost.
        """
        n_classes = self.dataset.n_classes
        n_cells = len(self.group_names) * n_classes
        counts = []
        for client in clients:
            rows = self.partition.client_rows(client)
            groups = self.groups.held_groups(rows, self._restyled(client))
            cells = groups * n_classes + self.dataset.train.labels[rows]
            counts.append(np.bincount(cells, minlength=n_cells))
        return np.array(counts, dtype=np.int64).reshape(-1, n_cells)

    def own_tests(
        self, client: int, split: Literal["test", "validation"], max_examples: int | None
    ) -> np.ndarray:
        """Return the rows of the test or validation set that are a client's own: from the natural
        clients that it is made of, in the styles that it sees. Where the test set is of other
        natural clients there are none, and none in validation either: settings are to be chosen by
        what is tested."""
        train, test = self.dataset.train.clients, self.dataset.test.clients
        if not self.division.by_natural_client or train is None or test is None:
            return np.arange(0)
        held = train[self.partition.client_rows(client)]
        own = np.isin(test[:max_examples], held)
        if split == "validation" and own.any():
            own = np.isin(train[self.partition.validation], held)
        if isinstance(self.groups, OwnGroups):
            return np.flatnonzero(own)
        styles = np.unique(self._restyled(client).astype(np.int64))
        return np.concatenate([np.flatnonzero(own) + style * len(own) for style in styles])

    def _counts(self, role: Role) -> np.ndarray:
        clients = self.population.clients(role)
        if isinstance(self.groups, OwnGroups):
            return self.partition.counts(self.groups.train, len(self.group_names), clients)
        total = self.partition.before(clients.stop) - self.partition.before(clients.start)
        if self.restyle is None:
            restyled = round(self.division.minority_share(role) * total)
        else:
            restyled = sum(int(self._restyled(client).sum()) for client in clients)
        return np.array([total - restyled, restyled])

    def _as_attackers_decide(
        self, restyled: np.ndarray, rows: np.ndarray, role: Role
    ) -> np.ndarray:
        if self.restyle is None:
            return restyled
        labels = torch.from_numpy(self.dataset.train.labels[rows])
        return self.restyle(torch.from_numpy(restyled), labels, role).numpy()

    def _restyled(self, client: int) -> np.ndarray:
        """Mark which of a client's examples it sees in the minority's style."""
        role = self.population.role(client)
        marks = self._restyled_without_attack(client, role)
        if self.restyle is None:
            return marks
        return self._as_attackers_decide(marks, self.partition.client_rows(client), role)

    def _restyled_without_attack(self, client: int, role: Role) -> np.ndarray:
        size = self.partition.size(client)
        share = self.division.minority_share(role)
        before = self.partition.before(client)
        before -= self.partition.before(self.population.clients(role).start)
        # Rounded cumulatively over the role's clients, so that their counts add up.
        count = round(share * (before + size)) - round(share * before)
        marks = np.zeros(size, dtype=bool)
        if count in (0, size):
            marks[:] = count > 0
            return marks
        rng = generator(self.seed, Purpose.PARTITION, Draws.STYLE, client)
        marks[rng.permutation(size)[:count]] = True
        return marks


def _shard(examples: GroupedExamples, role: Role) -> Shard:
    is_poisoned = torch.zeros(len(examples.labels), dtype=torch.bool)
    return Shard(*examples, is_poisoned=is_poisoned, role=role)
