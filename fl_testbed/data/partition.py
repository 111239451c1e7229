"""Which training examples go to which client: index arrays, disjoint and repeatable."""

from dataclasses import dataclass

import numpy as np

from fl_testbed.data.dataset import DataError


@dataclass(frozen=True)
class Partition:
    """Rows of the training set by client, in one array: 100,000 clients cost two arrays."""

    rows: np.ndarray
    """Rows of all clients, client after client."""
    starts: np.ndarray
    """Where each client's rows begin; one entry more than clients."""
    server: np.ndarray
    """Rows that the server keeps for itself; no client holds them."""

    def client_rows(self, client: int) -> np.ndarray:
        """Return one client's rows."""
        return self.rows[self.starts[client] : self.starts[client + 1]]

    def size(self, client: int) -> int:
        """Return how many examples one client holds."""
        return int(self.starts[client + 1] - self.starts[client])


def equal_shards(
    n_clients: int,
    examples_each: int,
    n_server: int,
    n_train: int,
    rng: np.random.Generator,
    wanted: tuple[int, int, np.ndarray] | None = None,
) -> Partition:
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
        return Partition(pool[: n_clients * examples_each], starts, server)
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
    return Partition(np.concatenate([plain, attackers.ravel()]), starts, server)
