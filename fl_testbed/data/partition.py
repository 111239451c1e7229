"""Which training examples go to which client: repeatable index arrays."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from clients.shard import Role
from fl_testbed.data.dataset import DataError
from fl_testbed.data.dealing import (
    Dealer,
    Pool,
    Shares,
    Wanted,
    apportioned,
    limited_counts,
)
from fl_testbed.data.groups import OwnGroups
from fl_testbed.data.population import Population
from strategies.randomness import Purpose, generator

MAJORITY, MINORITY = Role.HONEST_MAJORITY, Role.HONEST_MINORITY
KINDS = {MAJORITY: "majority", MINORITY: "minority"}
"""The two kinds of data, named by the honest role that holds them; attackers hold one of them."""


class Draws(IntEnum):
    """What random numbers are used for in a federation's partition. Never renumber."""

    SPLIT = 0
    """Which examples are for testing, where the publisher made no split."""
    SHARDS = 1
    """Which examples each client gets, drawn for all clients together."""
    CLIENT = 2
    """Which examples one client gets, where each draws without regard to the others."""
    STYLE = 3
    """Which of a client's examples it sees in the minority's style."""


@dataclass(frozen=True)
class DisjointShards:
    """Shards that share no example, in one array: 100,000 clients cost two arrays."""

    rows: np.ndarray
    """Rows of all clients, client after client."""
    starts: np.ndarray
    """Where in ``rows`` each client's begin; one entry more than clients."""
    server: np.ndarray
    """Rows that the server keeps for itself; no client holds them."""
    validation: np.ndarray
    """Rows to judge models by before anybody looks at the test set; no client holds them."""

    def client_rows(self, client: int) -> np.ndarray:
        """Return one client's rows."""
        return self.rows[self.starts[client] : self.starts[client + 1]]

    def size(self, client: int) -> int:
        """Return how many examples one client holds."""
        return int(self.starts[client + 1] - self.starts[client])

    def before(self, client: int) -> int:
        """Return how many examples the clients with smaller ids hold together."""
        return int(self.starts[client])

    def counts(self, codes: np.ndarray, n_codes: int, clients: range) -> np.ndarray:
        """Return how many of some clients' examples have each code."""
        rows = self.rows[self.starts[clients.start] : self.starts[clients.stop]]
        return np.bincount(codes[rows], minlength=n_codes)


class Strata(NamedTuple):
    """What a role's clients draw their examples from: piles of rows, and the share of each."""

    piles: tuple[np.ndarray, ...]
    shares: np.ndarray
    by_class: tuple[tuple[np.ndarray, ...], ...] = ()
    """Each pile split by class, where clients draw a mix of classes each."""


@dataclass(frozen=True)
class OverlappingShards:
    """Shards drawn independently of each other when asked for, so any number of clients costs
    nothing and two may hold the same example."""

    population: Population
    strata: dict[Role, Strata]
    """By role, one pile for each group; one pile in all where any client may hold any group."""
    examples_each: int
    alpha: float | None
    """Dirichlet concentration of each client's mix of classes; None: the mix of the pile."""
    wanted_pool: np.ndarray
    """Rows that attackers can poison, among those that they draw from."""
    n_wanted: np.ndarray
    """How many of these rows each attacker must hold; they replace random ones of its shard."""
    seed: int
    server: np.ndarray
    validation: np.ndarray

    def client_rows(self, client: int) -> np.ndarray:
        """Return one client's rows; no client holds an example twice."""
        rng = generator(self.seed, Purpose.PARTITION, Draws.CLIENT, client)
        role = self.population.role(client)
        rows = self._drawn(role, rng)
        if role is not Role.POISONED:
            return rows
        n_wanted = self.n_wanted[client - self.population.clients(role).start]
        poisoned = rng.permutation(len(rows))[:n_wanted]
        given = poisoned[~np.isin(rows[poisoned], self.wanted_pool)]
        others = rng.permutation(self.wanted_pool[~np.isin(self.wanted_pool, rows)])[: len(given)]
        rows[given[: len(others)]] = others  # fewer only where the rest of the shard has them all
        return rows

    def _drawn(self, role: Role, rng: np.random.Generator) -> np.ndarray:
        piles, shares, by_class = self.strata[role]
        left = np.array([len(pile) for pile in piles])
        counts = limited_counts(self.examples_each, shares, left, rng).tolist()
        if self.alpha is None:
            pairs = zip(piles, counts, strict=True)
            drawn = [rng.choice(pile, n, replace=False) for pile, n in pairs]
        else:
            drawn = [
                rows
                for classes, n in zip(by_class, counts, strict=True)
                for rows in self._drawn_by_class(classes, n, rng)
            ]
        return np.concatenate(drawn)

    def _drawn_by_class(
        self, classes: tuple[np.ndarray, ...], n: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        if n == 0:
            return
        if len(classes) == 1:
            yield rng.choice(classes[0], n, replace=False)
            return
        left = np.array([len(rows) for rows in classes])
        mix = rng.dirichlet(np.full(len(classes), self.alpha))
        for rows, count in zip(classes, limited_counts(n, mix, left, rng).tolist(), strict=True):
            yield rng.choice(rows, count, replace=False)

    def size(self, client: int) -> int:
        """Return how many examples one client holds."""
        return self.examples_each

    def before(self, client: int) -> int:
        """Return how many examples the clients with smaller ids hold together."""
        return client * self.examples_each

    def counts(self, codes: np.ndarray, n_codes: int, clients: range) -> np.ndarray:
        """Return expected counts, rounded, since drawing every client's shard would take long."""
        expected = np.zeros(n_codes)
        for role in Role:
            ids = self.population.clients(role)
            n = len(range(max(ids.start, clients.start), min(ids.stop, clients.stop)))
            piles, shares, _ = self.strata[role]
            for pile, share in zip(piles, shares, strict=True):
                mix = np.bincount(codes[pile], minlength=n_codes) / max(1, len(pile))
                expected += n * self.examples_each * share * mix
        return np.rint(expected).astype(np.int64)


Partition = DisjointShards | OverlappingShards
"""Which rows of the training set each client holds."""


@dataclass(frozen=True)
class Division:
    """Who is to hold which data: everything about a partition except the way of dealing."""

    population: Population
    examples_each: int | None
    """None: all examples are dealt."""
    groups: OwnGroups | None = None
    """The examples' own groups, if some are minorities; None where any client may hold any
    example."""
    concentration: float = 1.0
    """How far minority data is confined to minority clients: 1 wholly, 0 the same mix for all."""
    minority_mix: dict[int, float] | None = None
    """Shares of groups in a minority client's data; by default minority groups by their sizes."""
    attackers_hold: Role = MAJORITY
    """Which kind of data attackers hold, named by its honest role."""
    wanted: Wanted | None = None
    """What attackers need in order to poison."""
    legacy: bool = False
    """Whether they get it as :mod:`fl_testbed.data.legacy_dealing` says."""
    n_server: int = 0
    n_server_minority: int = 0
    """How many of the server's examples are of minority groups, if examples have groups."""
    server_bias: tuple[int, float] | None = None
    """A class and its share of the server's examples; by default classes are left to chance."""
    n_validation: int = 0
    by_natural_client: bool = False
    """Whether all examples of a natural client go to the minority, or all to the majority."""

    def kind(self, role: Role) -> Role:
        """Return which kind of data, named by an honest role, a role's clients hold."""
        return self.attackers_hold if role is Role.POISONED else role

    def holders(self, kind: Role | None) -> np.ndarray:
        """Return the ids of the clients that hold a kind of data; of all clients if it is None."""
        roles = [role for role in Role if kind in (None, self.kind(role))]
        return np.concatenate([self.population.clients(role) for role in roles]).astype(np.int64)

    def minority_share(self, role: Role) -> float:
        """Return the share of its examples that a role's clients see in the minority's style."""
        majority, minority = self.population.honest_majority, self.population.honest_minority
        spread = minority / max(1, majority + minority)
        own = 1.0 if self.kind(role) is MINORITY else 0.0
        return self.concentration * own + (1 - self.concentration) * spread


def disjoint_shards(
    division: Division,
    deal: Dealer,
    labels: np.ndarray,
    natural_clients: np.ndarray | None,
    rng: np.random.Generator,
) -> DisjointShards:
    """Share out the training set so that no two clients, nor the server, hold the same example.

    Examples with groups of their own are first split into two pools, one for the holders of
    majority data and one for those of minority data; each pool is then dealt by itself.

    Args:
        division: Who shall hold what.
        deal: How each kind of data is dealt to its clients.
        labels: Class of each training example, shape (n_train,).
        natural_clients: Natural client of each, if the dataset knows.
        rng: Shuffles and deals.

    Raises:
        DataError: If there are too few examples of some kind.
    """
    order = rng.permutation(len(labels))
    validation, server, order = _held_out(division, labels, order)
    population = division.population
    shares: list[tuple[np.ndarray, Shares]] = []
    for kind, rows, spare in _pools(division, order, natural_clients, rng):
        clients = division.holders(kind)
        if not len(clients):
            continue
        pool = Pool(
            rows,
            labels,
            len(clients),
            division.examples_each,
            population.poisoned if kind in (None, division.attackers_hold) else 0,
            division.wanted,
            spare,
            natural_clients,
            division.legacy,
        )
        try:
            shares.append((clients, deal(pool, rng)))
        except DataError as fault:
            if kind is None or len(clients) == len(population):
                raise
            whose = "; a natural client is of the minority if at least half of its examples are"
            text = f"data of the {KINDS[kind]}: {fault}{whose * division.by_natural_client}"
            raise DataError(text) from None
    return _joined(shares, len(population), server, validation)


def overlapping_shards(
    division: Division, alpha: float | None, labels: np.ndarray, seed: int
) -> OverlappingShards:
    """Let every client draw its examples without regard to the others.

    Args:
        division: Who shall hold what; ``examples_each`` must be given.
        alpha: Dirichlet concentration of each client's mix of classes; None: as in the data.
        labels: Class of each training example, shape (n_train,).
        seed: The scenario's seed.

    Raises:
        DataError: If there are fewer examples than a shard holds.
    """
    order = generator(seed, Purpose.PARTITION, Draws.SHARDS).permutation(len(labels))
    validation, server, order = _held_out(division, labels, order)
    each = division.examples_each
    if each is None:
        raise DataError("clients.overlap needs clients.examples_each")
    strata = _strata(division, order)
    if alpha is not None:
        strata = {
            role: own._replace(by_class=_by_class(own, labels)) for role, own in strata.items()
        }
    n_attackers = division.population.poisoned
    wanted_pool, n_wanted = order[:0], np.zeros(n_attackers, dtype=np.int64)
    if division.wanted is not None and n_attackers:
        theirs = np.concatenate(strata[Role.POISONED].piles)
        wanted_pool = theirs[division.wanted.mask[theirs]]
        n_wanted = division.wanted.counts(np.full(n_attackers, each))
    smallest = min(sum(len(pile) for pile in own.piles) for own in strata.values())
    most_wanted = int(n_wanted.max(initial=0))
    if each > smallest:
        text = f"a client needs {each:,} examples, but there are {smallest:,}"
        raise DataError(f"{text}: lower clients.examples_each")
    if most_wanted > len(wanted_pool):
        raise DataError(
            f"an attacker needs {most_wanted:,} examples that it can poison, but there are "
            f"{len(wanted_pool):,}: lower clients.examples_each or poison.fraction"
        )
    return OverlappingShards(
        division.population,
        strata,
        each,
        alpha,
        wanted_pool,
        n_wanted,
        seed,
        server,
        validation,
    )


def _strata(division: Division, order: np.ndarray) -> dict[Role, Strata]:
    groups = division.groups
    if groups is None:
        return dict.fromkeys(Role, Strata((order,), np.ones(1)))
    codes = groups.train[order]
    sizes = np.bincount(codes, minlength=len(groups.names))
    mixes = _mixes(division, groups, sizes)
    strata: dict[Role, Strata] = {}
    for role in Role:
        mix = mixes[division.kind(role)]
        held = np.flatnonzero(mix)
        if not len(held):  # no client has this role
            held = np.flatnonzero(sizes)
        piles = tuple(order[codes == group] for group in held)
        strata[role] = Strata(piles, mix[held])
    return strata


def _by_class(strata: Strata, labels: np.ndarray) -> tuple[tuple[np.ndarray, ...], ...]:
    return tuple(
        tuple(pile[labels[pile] == c] for c in np.unique(labels[pile])) for pile in strata.piles
    )


def _held_out(
    division: Division, labels: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the validation rows, the server's, and the rest, each in order."""
    n_validation, n_server = division.n_validation, division.n_server
    if n_validation + n_server > len(order):
        raise DataError(
            f"{n_server:,} examples for the server and {n_validation:,} for validation are more "
            f"than the {len(order):,} training examples: lower server_data.n_examples or "
            "evaluation.n_validation"
        )
    validation, order = order[:n_validation], order[n_validation:]
    groups = division.groups
    kinds = [("", np.arange(len(order)), n_server)]
    if groups is not None and n_server:
        n_minority = division.n_server_minority
        is_minority = groups.is_minority[groups.train[order]]
        kinds = [
            ("minority ", np.flatnonzero(is_minority), n_minority),
            ("majority ", np.flatnonzero(~is_minority), n_server - n_minority),
        ]
    bias = division.server_bias
    parts = [rows[_kept(labels[order[rows]], n, bias, kind)] for kind, rows, n in kinds]
    kept = np.concatenate(parts)
    return validation, order[kept], np.delete(order, kept)


def _kept(labels: np.ndarray, n: int, bias: tuple[int, float] | None, kind: str) -> np.ndarray:
    """Return which n of some examples in random order the server keeps: the first ones, or the
    first of the biased class and of the others, as many of each as its share says."""
    parts, otherwise = [(np.arange(len(labels)), n, "examples")], ""
    if bias is not None:
        label, share = bias
        of_class, n_of_class = labels == label, round(share * n)
        parts = [
            (np.flatnonzero(of_class), n_of_class, f"examples of class {label}"),
            (np.flatnonzero(~of_class), n - n_of_class, "examples of other classes"),
        ]
        otherwise = " or change server_data.bias"
    for rows, wanted, what in parts:
        if wanted > len(rows):
            raise DataError(
                f"the server cannot keep {wanted} of {len(rows):,} {kind}{what}: lower "
                f"server_data.n_examples{otherwise}"
            )
    return np.sort(np.concatenate([rows[:wanted] for rows, wanted, _ in parts]))


def _pools(
    division: Division,
    order: np.ndarray,
    natural_clients: np.ndarray | None,
    rng: np.random.Generator,
) -> list[tuple[Role | None, np.ndarray, np.ndarray | None]]:
    """Return, for each kind of data, the rows to deal to its clients, and rows that only attackers
    among them may get; if kinds do not matter, a single entry for all clients, its kind None."""
    groups = division.groups
    if groups is None:
        return [(None, order, None)]
    codes = groups.train[order]
    if division.by_natural_client and natural_clients is not None:
        inverse = np.unique(natural_clients[order], return_inverse=True)[1]
        n_minority = np.bincount(inverse, groups.is_minority[codes])
        in_minority = (n_minority / np.bincount(inverse) >= 0.5)[inverse]
        return [(MAJORITY, order[~in_minority], None), (MINORITY, order[in_minority], None)]
    counts = _pool_counts(division, groups, np.bincount(codes, minlength=len(groups.names)))
    rank = _rank_within(codes, len(groups.names))
    to_majority = rank < counts[MAJORITY][codes]
    claimed = rank < (counts[MAJORITY] + counts[MINORITY])[codes]
    held_by_attackers = np.flatnonzero(counts[division.attackers_hold])
    spare = order[~claimed & np.isin(codes, held_by_attackers)]
    dealt = {MAJORITY: order[to_majority], MINORITY: order[claimed & ~to_majority]}
    is_shared = np.logical_and(counts[MAJORITY], counts[MINORITY]).any()
    is_mixed = any(np.count_nonzero(counts[kind]) > 1 for kind in dealt)
    if is_shared or (is_mixed and not division.legacy):
        # A shared group is cut in two, so each part lies close together in the random order; and
        # groups end where their numbers are reached, so the last rows are of those that end late.
        dealt = {kind: rng.permutation(rows) for kind, rows in dealt.items()}
    return [(kind, rows, spare) for kind, rows in dealt.items()]


def _rank_within(codes: np.ndarray, n_codes: int) -> np.ndarray:
    """Return how many earlier entries have the same code, for each entry."""
    by_code = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.bincount(codes, minlength=n_codes).cumsum()[:-1]])
    rank = np.empty(len(codes), dtype=np.int64)
    rank[by_code] = np.arange(len(codes)) - starts[codes[by_code]]
    return rank


def _mixes(division: Division, groups: OwnGroups, sizes: np.ndarray) -> dict[Role, np.ndarray]:
    """Return the shares of groups in the data of majority and of minority clients."""
    own = {
        MAJORITY: np.where(groups.is_minority, 0, sizes),
        MINORITY: np.where(groups.is_minority, sizes, 0),
    }
    if division.minority_mix is not None:
        own[MINORITY] = np.array([division.minority_mix.get(g, 0.0) for g in range(len(sizes))])
    n_honest = {kind: len(division.population.clients(kind)) for kind in KINDS}
    for kind, who in KINDS.items():
        if (n := n_honest[kind]) and not own[kind].sum():
            raise DataError(f"there is no example of a {who} group for {n} {who} clients")
    own = {kind: weights / max(weights.sum(), 1e-300) for kind, weights in own.items()}
    overall = sum(n * own[kind] for kind, n in n_honest.items()) / max(1, sum(n_honest.values()))
    c = division.concentration
    return {kind: c * mix + (1 - c) * overall for kind, mix in own.items()}


def _pool_counts(
    division: Division, groups: OwnGroups, sizes: np.ndarray
) -> dict[Role, np.ndarray]:
    """Return how many examples of each group the holders of each kind of data get in total."""
    n_clients = {kind: len(division.holders(kind)) for kind in KINDS}
    if division.examples_each is None:
        share = n_clients[MINORITY] / sum(n_clients.values())
        c = division.concentration if 0 < share < 1 else 0.0  # else all goes to one kind
        to_minority = np.rint(sizes * (c * groups.is_minority + (1 - c) * share)).astype(np.int64)
        return {MAJORITY: sizes - to_minority, MINORITY: to_minority}
    mixes = _mixes(division, groups, sizes)
    counts = {
        kind: apportioned(n * division.examples_each, mixes[kind]) for kind, n in n_clients.items()
    }
    needed = counts[MAJORITY] + counts[MINORITY]
    for name, n, there in zip(groups.names, needed, sizes, strict=True):
        if n > there:
            raise DataError(
                f"clients need {n:,} examples of the group {name!r}, but there are {there:,}: "
                "lower clients.examples_each or the number of clients, or change "
                "clients.minority_mix"
            )
    return counts


def _joined(
    shares: list[tuple[np.ndarray, Shares]],
    n_clients: int,
    server: np.ndarray,
    validation: np.ndarray,
) -> DisjointShards:
    """Join the shards of several pools, in the order of client ids."""
    sizes = np.zeros(n_clients, dtype=np.int64)
    for clients, (_, starts) in shares:
        sizes[clients] = np.diff(starts)
    starts = np.concatenate([[0], sizes.cumsum()])
    rows = np.empty(starts[-1], dtype=np.int64)
    for clients, (dealt, own_starts) in shares:
        shift = np.repeat(starts[clients] - own_starts[:-1], np.diff(own_starts))
        rows[np.arange(len(dealt)) + shift] = dealt
    return DisjointShards(rows, starts, server, validation)
