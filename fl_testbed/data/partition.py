"""Which training examples go to which client: repeatable index arrays."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fl_testbed.data.dataset import DataError
from strategies.randomness import Purpose, generator


class Partition(Protocol):
    """Rows of the training set by client."""

    server: np.ndarray
    """Rows that the server keeps for itself; no client holds them."""

    def client_rows(self, client: int) -> np.ndarray:
        """Return one client's rows."""
        ...

    def size(self, client: int) -> int:
        """Return how many examples one client holds."""
        ...


@dataclass(frozen=True)
class DisjointShards:
    """Shards that share no example, in one array: 100,000 clients cost two arrays."""

    rows: np.ndarray
    """Rows of all clients, client after client."""
    starts: np.ndarray
    """Where each client's rows begin; one entry more than clients."""
    server: np.ndarray

    def client_rows(self, client: int) -> np.ndarray:
        """Return one client's rows."""
        return self.rows[self.starts[client] : self.starts[client + 1]]

    def size(self, client: int) -> int:
        """Return how many examples one client holds."""
        return int(self.starts[client + 1] - self.starts[client])


@dataclass(frozen=True)
class OverlappingShards:
    """Shards drawn independently of each other when asked for, so any number of clients costs
    nothing and two may hold the same example."""

    pool: np.ndarray
    """Rows that clients draw from."""
    wanted_pool: np.ndarray
    """Rows that the last ``n_special`` clients draw their first ``n_wanted`` examples from."""
    n_clients: int
    examples_each: int
    n_special: int
    n_wanted: int
    seed: int
    server: np.ndarray

    def client_rows(self, client: int) -> np.ndarray:
        """Return one client's rows; no client holds an example twice."""
        rng = generator(self.seed, Purpose.PARTITION, 2, client)
        if client < self.n_clients - self.n_special:
            return rng.choice(self.pool, self.examples_each, replace=False)
        first = rng.choice(self.wanted_pool, self.n_wanted, replace=False)
        more = rng.choice(self.pool, self.examples_each, replace=False)
        others = more[~np.isin(more, first)]
        return np.concatenate([first, others])[: self.examples_each]

    def size(self, client: int) -> int:
        """Return how many examples one client holds."""
        return self.examples_each


def equal_shards(
    n_clients: int,
    examples_each: int,
    n_server: int,
    n_train: int,
    rng: np.random.Generator,
    wanted: tuple[int, int, np.ndarray] | None = None,
) -> DisjointShards:
    """Deal out random examples, the same number to each client.

    Args:
        n_clients: How many clients.
        examples_each: Examples per client.
        n_server: Examples that the server keeps.
        n_train: Examples there are.
        rng: Shuffles them.
        wanted: ``(k, m, mask)``: each of the last k clients gets at least m of the examples that
            the mask, shape (n_train,), marks. Attackers need images of the class they poison.

    Raises:
        DataError: If there are too few examples.
    """
    needed = n_clients * examples_each + n_server
    if needed > n_train:
        raise DataError(
            f"{n_clients} clients with {examples_each} examples each and {n_server} for the server "
            f"need {needed:,} training examples, there are {n_train:,}: lower "
            "clients.examples_each or the number of clients"
        )
    order = rng.permutation(n_train)
    server, pool = order[:n_server], order[n_server:]
    starts = np.arange(n_clients + 1, dtype=np.int64) * examples_each
    if wanted is None:
        return DisjointShards(pool[: n_clients * examples_each], starts, server)
    n_special, n_wanted, mask = wanted
    special, rest = pool[mask[pool]], pool
    if n_special * n_wanted > len(special):
        raise DataError(
            f"{n_special} attackers need {n_wanted} examples each that they can poison, there are "
            f"{len(special):,}: lower poison.fraction, clients.examples_each or clients.poisoned"
        )
    special = special[: n_special * n_wanted]
    rest = rest[~np.isin(rest, special)]
    n_plain = (n_clients - n_special) * examples_each
    plain, rest = rest[:n_plain], rest[n_plain:]
    filler = rest[: n_special * (examples_each - n_wanted)]
    attackers = np.concatenate(
        [special.reshape(n_special, n_wanted), filler.reshape(n_special, examples_each - n_wanted)],
        axis=1,
    )
    return DisjointShards(np.concatenate([plain, attackers.ravel()]), starts, server)


def overlapping_shards(
    n_clients: int,
    examples_each: int,
    n_server: int,
    n_train: int,
    seed: int,
    wanted: tuple[int, int, np.ndarray] | None = None,
) -> OverlappingShards:
    """Let every client draw its examples from the same pool, without regard to the others.

    Args:
        n_clients: How many clients.
        examples_each: Examples per client, each at most once.
        n_server: Examples that the server keeps: clients do not draw these.
        n_train: Examples there are.
        seed: The scenario's seed.
        wanted: As for :func:`equal_shards`.

    Raises:
        DataError: If the pool is smaller than a shard.
    """
    order = generator(seed, Purpose.PARTITION, 1).permutation(n_train)
    server, pool = order[:n_server], order[n_server:]
    n_special, n_wanted, mask = wanted or (0, 0, np.zeros(n_train, dtype=bool))
    wanted_pool = pool[mask[pool]]
    if examples_each > len(pool) or n_wanted > len(wanted_pool):
        raise DataError(
            f"a client cannot hold {examples_each} of {len(pool):,} examples, {n_wanted} of "
            f"{len(wanted_pool):,} to poison: lower clients.examples_each or poison.fraction"
        )
    return OverlappingShards(
        pool, wanted_pool, n_clients, examples_each, n_special, n_wanted, seed, server
    )
