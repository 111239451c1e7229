"""Ways to deal examples out to clients: index arrays in, index arrays out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fl_testbed.data.dataset import DataError
from fl_testbed.data.legacy_dealing import attackers_first, exchange_what_they_lack

ATTEMPTS = 100  # random partitions to draw before giving up on a minimum size


class Wanted(NamedTuple):
    """What attackers need in order to poison: enough examples of some kind."""

    mask: np.ndarray
    """Which training examples can be poisoned, bool, shape (n_train,)."""
    fraction: float | np.ndarray
    """Share of an attacker's shard that must be of this kind, rounded to examples; one share for
    all attackers, or one for each, shape (attackers,)."""

    def counts(self, sizes: np.ndarray) -> np.ndarray:
        """Return how many of these examples attackers with shards of such sizes need."""
        return np.rint(self.fraction * sizes).astype(np.int64)


@dataclass(frozen=True)
class Pool:
    """Some clients, and the examples to deal to them."""

    rows: np.ndarray
    """Rows of the training set, in random order."""
    labels: np.ndarray
    """Class of each training example, shape (n_train,)."""
    n_clients: int
    examples_each: int | None = None
    """None: all rows are dealt."""
    n_attackers: int = 0
    """How many clients are attackers: the last ones."""
    wanted: Wanted | None = None
    """What kind of examples each attacker must get, if any."""
    spare: np.ndarray | None = None
    """Further rows that are dealt only to an attacker, if it can poison them."""
    natural_clients: np.ndarray | None = None
    """Natural client of each training example, shape (n_train,)."""
    legacy: bool = False
    """Whether attackers get what they want as :mod:`fl_testbed.data.legacy_dealing` says."""


class Shares(NamedTuple):
    """Which rows each client gets."""

    rows: np.ndarray
    """Rows of all clients, client after client."""
    starts: np.ndarray
    """Where in ``rows`` each client's begin; one entry more than clients."""


Dealer = Callable[[Pool, np.random.Generator], Shares]


def iid(pool: Pool, rng: np.random.Generator) -> Shares:
    """Deal random examples, the same number to each client (or one more, where all are dealt)."""
    if pool.examples_each is None:
        _check_enough(pool, pool.n_clients, "an example each")
        sizes = np.diff(np.arange(pool.n_clients + 1) * len(pool.rows) // pool.n_clients)
    else:
        sizes = np.full(pool.n_clients, pool.examples_each)
    return _by_sizes(pool, sizes, rng)


def quantity_skew(
    pool: Pool, rng: np.random.Generator, alpha: float, min_examples: int = 1
) -> Shares:
    """Deal random examples in numbers that follow a symmetric Dirichlet distribution.

    Args:
        pool: ``examples_each`` is the mean of the sizes.
        rng: Draws the sizes, and what attackers exchange.
        alpha: Concentration, > 0; towards 0 a few clients hold nearly everything.
        min_examples: Every client gets these first.

    Raises:
        DataError: If there are too few examples.

    References:
        Li et al., Federated Learning on Non-IID Data Silos: An Experimental Study, ICDE 2022.
    """
    total = len(pool.rows)
    if pool.examples_each is not None:
        total = pool.examples_each * pool.n_clients
    if min_examples * pool.n_clients > total:
        raise DataError(
            f"{pool.n_clients} clients with at least {min_examples} examples need "
            f"{min_examples * pool.n_clients:,}, but there are {total:,} to deal: lower "
            "partition.min_examples"
        )
    shares = rng.dirichlet(np.full(pool.n_clients, alpha))
    extra = apportioned(total - min_examples * pool.n_clients, shares)
    return _by_sizes(pool, min_examples + extra, rng)


def dirichlet(pool: Pool, rng: np.random.Generator, alpha: float, min_examples: int = 1) -> Shares:
    """Deal classes in proportions that follow a symmetric Dirichlet distribution.

    Two conventions go by this name. With ``examples_each`` every client draws its mix of classes
    and gets that many examples (latent Dirichlet allocation, as Hsu et al. and Flower's baselines
    do; α is per class, where Hsu et al. write α times the class's share). Clients choose in random
    order, so that no role is left with what others did not take. Without it every class is shared
    out over the clients, sizes vary, and all examples are dealt (Yurochkin et al., whose code gives
    clients that already hold their n-th of the data nothing of later classes: sizes vary less).

    Args:
        pool: What is dealt to whom.
        rng: Draws the mixes, and the examples within a class.
        alpha: Concentration per class, > 0; towards 0 a client holds one class.
        min_examples: The smallest shard there may be, without ``examples_each``: a partition with
            a smaller one is drawn again.

    Raises:
        DataError: If there are too few examples, or no draw has shards large enough.

    References:
        Hsu et al., Measuring the Effects of Non-Identical Data Distribution for Federated Visual
        Classification, 2019.
        Yurochkin et al., Bayesian Nonparametric Federated Learning of Neural Networks, ICML 2019.
    """
    classes = [pool.rows[pool.labels[pool.rows] == c] for c in np.unique(pool.labels[pool.rows])]
    available = np.array([len(rows) for rows in classes])
    if pool.examples_each is not None:
        _check_enough(pool, pool.n_clients * pool.examples_each, f"{pool.examples_each} examples")
        counts = np.zeros((pool.n_clients, len(classes)), dtype=np.int64)
        left = available.copy()
        mixes = rng.dirichlet(np.full(len(classes), alpha), size=pool.n_clients)
        for client in rng.permutation(pool.n_clients):
            counts[client] = limited_counts(pool.examples_each, mixes[client], left, rng)
            left -= counts[client]
        return _exchanged(pool, _by_counts(classes, counts), rng)
    _check_enough(pool, pool.n_clients * min_examples, f"{min_examples} examples")
    smallest = -1
    for _ in range(ATTEMPTS):
        shares = rng.dirichlet(np.full(pool.n_clients, alpha), size=len(classes))
        bounds = np.rint(shares.cumsum(axis=1) * available[:, None]).astype(np.int64)
        bounds[:, -1] = available  # exactly, whatever the rounding of the sum
        counts = np.diff(bounds, axis=1, prepend=0).T
        smallest = max(smallest, int(counts.sum(axis=1).min()))
        if smallest >= min_examples:
            return _exchanged(pool, _by_counts(classes, counts), rng)
    raise DataError(
        f"in each of {ATTEMPTS} Dirichlet partitions with alpha = {alpha:g} some client of "
        f"{pool.n_clients} holds fewer than {min_examples} examples, at best {smallest}: "
        "raise partition.alpha, lower partition.min_examples or the number of clients, or fix "
        "clients.examples_each"
    )


def pathological(pool: Pool, rng: np.random.Generator, shards_per_client: int) -> Shares:
    """Sort examples by class, cut them into equal shards, and deal every client some at random.

    With one shard per client this is the non-IID split of Karimireddy et al. (ICLR 2022).

    Args:
        pool: ``examples_each`` must be a multiple of the number of shards; without it all
            examples are dealt, and shards differ by one example at most.
        rng: Shuffles the shards.
        shards_per_client: 2 in the paper.

    Raises:
        DataError: If there are too few examples.

    References:
        McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data,
        AISTATS 2017.
    """
    n_shards = pool.n_clients * shards_per_client
    if pool.examples_each is not None and pool.examples_each % shards_per_client:
        raise DataError(
            f"{shards_per_client} shards per client cannot make {pool.examples_each} examples: "
            "clients.examples_each must be a multiple of partition.shards_per_client"
        )
    rows = _dealt(pool)
    _check_enough(pool, n_shards, f"{shards_per_client} shards")
    rows = rows[np.argsort(pool.labels[rows], kind="stable")]
    bounds = np.arange(n_shards + 1) * len(rows) // n_shards
    owner = np.empty(n_shards, dtype=np.int64)
    owner[rng.permutation(n_shards)] = np.repeat(np.arange(pool.n_clients), shards_per_client)
    owners = np.repeat(owner, np.diff(bounds))
    return _exchanged(pool, _by_owner(rows, owners, pool.n_clients), rng)


def natural(
    pool: Pool, rng: np.random.Generator, *, merge: bool = False, min_examples: int = 1
) -> Shares:
    """Make each client one natural client, such as a writer, chosen at random.

    Args:
        pool: ``examples_each`` cuts larger clients down; without it each keeps all it has.
        rng: Chooses the natural clients, and which examples are cut.
        merge: Whether a client is made of as many natural ones as it takes to have
            ``examples_each`` examples. By default it is one, and those with too few are left out.
        min_examples: The fewest examples a natural client may have, without ``examples_each``.

    Raises:
        DataError: If the dataset has no natural clients, or not enough.
    """
    if pool.natural_clients is None:
        raise DataError(
            "the dataset does not say which client an example is from: choose another "
            "partition.kind"
        )
    clients = pool.natural_clients[pool.rows]
    ids, inverse, counts = np.unique(clients, return_inverse=True, return_counts=True)
    order = rng.permutation(len(ids))
    owner_of_id = np.full(len(ids), -1, dtype=np.int64)
    needed = pool.examples_each or min_examples
    if merge:
        n_whole, held = 0, 0
        for place in order:
            if n_whole == pool.n_clients:
                break
            owner_of_id[place] = n_whole
            held += counts[place]
            if held >= needed:
                n_whole, held = n_whole + 1, 0
        found = n_whole
    else:
        fitting = order[counts[order] >= needed][: pool.n_clients]
        owner_of_id[fitting] = np.arange(len(fitting))
        found = len(fitting)
    if found < pool.n_clients:
        natural = f"{len(ids)} natural clients ({len(clients):,} training examples)"
        there = f"{natural} can be merged to {found} of" if merge else f"{found} of {natural} have"
        key = "partition.min_examples" if pool.examples_each is None else "clients.examples_each"
        otherwise = f"lower {key}{'' if merge else ', set partition.merge'}, or "
        raise DataError(
            f"{pool.n_clients} clients are needed, but {there} {needed} or more examples: "
            f"{otherwise * (len(ids) >= pool.n_clients)}ask for fewer clients"
        )
    owners = owner_of_id[inverse]
    shares = _by_owner(pool.rows[owners >= 0], owners[owners >= 0], pool.n_clients)
    unused = pool.rows[owners < 0]
    if pool.examples_each is not None:
        sizes = np.diff(shares.starts)
        place = np.arange(len(shares.rows)) - np.repeat(shares.starts[:-1], sizes)
        kept = place < pool.examples_each
        unused = np.concatenate([unused, shares.rows[~kept]])
        shares = Shares(
            shares.rows[kept], np.arange(pool.n_clients + 1, dtype=np.int64) * pool.examples_each
        )
    return _exchanged(pool, shares, rng, unused)


def by_indices(
    pool: Pool,
    rng: np.random.Generator,
    indices: Callable[[Pool, np.random.Generator], Sequence[np.ndarray]],
) -> Shares:
    """Deal as a function says.

    Args:
        pool: What is dealt to whom.
        rng: Passed on to the function.
        indices: Returns for each client which of the pool's rows it gets, one or more, and no row
            twice. Where clients have ``examples_each``, there are as many rows as they need.

    Raises:
        DataError: If there are too few examples.
    """
    rows = _dealt(pool)
    own = indices(replace(pool, rows=rows.copy()), rng)
    starts = np.cumsum([0, *map(len, own)], dtype=np.int64)
    return _exchanged(pool, Shares(rows[np.concatenate(own)], starts), rng)


def apportioned(total: int, shares: np.ndarray) -> np.ndarray:
    """Split a whole number by shares that sum to 1, by largest remainders; the parts sum to it."""
    exact = total * np.asarray(shares, dtype=np.float64)
    parts = np.floor(exact + 1e-9).astype(np.int64)
    short = total - parts.sum()
    parts[np.argsort(parts - exact, kind="stable")[:short]] += 1
    return parts


def limited_counts(
    total: int, mix: np.ndarray, left: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw how many examples of each class a client gets: multinomial, as far as they last.

    What a class lacks is drawn from the other classes of the mix, in its proportions; if they are
    used up too, in proportion to what is left. All classes together must have ``total`` left.
    """
    counts = np.zeros(len(left), dtype=np.int64)
    while (missing := total - counts.sum()) > 0:
        rest = left - counts
        weights = np.where(rest > 0, mix, 0.0)
        if weights.sum() <= 0:
            weights = rest.astype(np.float64)
        draw = rng.multinomial(missing, weights / weights.sum())
        counts += np.minimum(draw, rest)
    return counts


def _dealt(pool: Pool) -> np.ndarray:
    """Return the first rows of the pool, as many as all clients together are dealt."""
    if pool.examples_each is None:
        return pool.rows
    n = pool.n_clients * pool.examples_each
    _check_enough(pool, n, f"{pool.examples_each} examples")
    return pool.rows[:n]


def _check_enough(pool: Pool, needed: int, what: str) -> None:
    if needed > len(pool.rows):
        raise DataError(
            f"{pool.n_clients} clients with {what} need {needed:,} training examples, but there "
            f"are {len(pool.rows):,}: lower clients.examples_each or the number of clients"
        )


def _by_sizes(pool: Pool, sizes: np.ndarray, rng: np.random.Generator) -> Shares:
    """Deal rows in their order."""
    _check_enough(pool, int(sizes.sum()), f"{pool.examples_each} examples each")
    starts = np.concatenate([[0], sizes.cumsum()]).astype(np.int64)
    if pool.legacy and pool.wanted is not None and pool.n_attackers:
        rows = pool.rows if pool.spare is None else np.concatenate([pool.rows, pool.spare])
        fits = pool.wanted.mask[rows]
        wanted = _needed(pool, pool.wanted, starts, fits)
        return Shares(attackers_first(rows, fits, wanted, starts), starts)
    return _exchanged(pool, Shares(pool.rows[: starts[-1]], starts), rng)


def _by_counts(classes: list[np.ndarray], counts: np.ndarray) -> Shares:
    """Deal each class's rows in their order; ``counts`` is (clients, classes)."""
    n_clients = len(counts)
    rows = [part[: counts[:, c].sum()] for c, part in enumerate(classes)]
    owners = [np.repeat(np.arange(n_clients), counts[:, c]) for c in range(len(classes))]
    return _by_owner(np.concatenate(rows), np.concatenate(owners), n_clients)


def _by_owner(rows: np.ndarray, owners: np.ndarray, n_clients: int) -> Shares:
    order = np.argsort(owners, kind="stable")
    sizes = np.bincount(owners, minlength=n_clients)
    return Shares(rows[order], np.concatenate([[0], sizes.cumsum()]).astype(np.int64))


def _exchanged(
    pool: Pool, shares: Shares, rng: np.random.Generator, unused: np.ndarray | None = None
) -> Shares:
    """Put examples that attackers can poison in the place of random ones of their shards, the rest
    of which stays as it was dealt.

    They come first from those that nobody holds, then from honest clients, who get in return what
    attackers give away, and last from the rest of attackers' shards.
    """
    if pool.wanted is None or pool.n_attackers == 0:
        return shares
    is_by_class = unused is None
    if unused is None:
        unused = pool.rows[~np.isin(pool.rows, shares.rows)]
    if pool.spare is not None:
        unused = np.concatenate([unused, pool.spare])
    rows = np.concatenate([shares.rows, unused])
    fits = pool.wanted.mask[rows]
    wanted = _needed(pool, pool.wanted, shares.starts, fits)
    starts = shares.starts[pool.n_clients - pool.n_attackers :]
    if pool.legacy:
        exchange_what_they_lack(rows, fits, wanted, starts, rng, is_by_class)
        return Shares(rows[: starts[-1]], shares.starts)
    places = [rng.permutation(np.arange(*ends)) for ends in pairwise(starts)]
    poisoned = np.concatenate([own[:n] for own, n in zip(places, wanted, strict=True)])
    rest = np.concatenate([own[n:] for own, n in zip(places, wanted, strict=True)])
    free, honest = np.arange(starts[-1], len(rows)), np.arange(starts[0])
    donors = np.concatenate([rng.permutation(free), rng.permutation(honest), rest])
    given = poisoned[~fits[poisoned]]
    taken = donors[fits[donors]][: len(given)]
    rows[given], rows[taken] = rows[taken], rows[given]
    return Shares(rows[: starts[-1]], shares.starts)


def _needed(pool: Pool, wanted: Wanted, starts: np.ndarray, fits: np.ndarray) -> np.ndarray:
    """Return how many examples each attacker poisons, if so many of those there are fit."""
    counts = wanted.counts(np.diff(starts)[pool.n_clients - pool.n_attackers :])
    there = int(fits.sum())
    if counts.sum() > there:
        alike = len(set(counts)) == 1
        each = f"{counts[0]} examples each" if alike else f"{counts.sum():,} examples"
        raise DataError(
            f"{pool.n_attackers} attackers need {each} that they can poison, but there are "
            f"{there:,}: lower poison.fraction, clients.examples_each or clients.poisoned"
        )
    return counts
