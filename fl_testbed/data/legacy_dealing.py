"""How attackers got what they poison in results that are stored: docs/federations.md.

Kept until these are run again.
"""

import numpy as np


def attackers_first(
    rows: np.ndarray, fits: np.ndarray, wanted: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """Deal rows in their order, after attackers have taken from its front what they can poison."""
    special, rest = rows[fits][: wanted.sum()], rows[~fits | (fits.cumsum() > wanted.sum())]
    attacker_sizes = np.diff(starts)[-len(wanted) :]
    n_plain = int(starts[-1] - attacker_sizes.sum())
    filler = rest[n_plain : starts[-1] - len(special)]
    specials = np.split(special, wanted.cumsum()[:-1])
    fillers = np.split(filler, (attacker_sizes - wanted).cumsum()[:-1])
    parts = (part for pair in zip(specials, fillers, strict=True) for part in pair)
    return np.concatenate([rest[:n_plain], *parts])


def exchange_what_they_lack(
    rows: np.ndarray,
    fits: np.ndarray,
    wanted: np.ndarray,
    bounds: np.ndarray,
    rng: np.random.Generator,
    is_by_class: bool,
) -> None:
    """Exchange, in place, as many rows as attackers lack; those dealt to them they poison first."""
    first, n_dealt = int(bounds[0]), int(bounds[-1])
    held = np.add.reduceat(np.append(fits[:n_dealt], False), bounds[:-1])  # no shard is empty
    missing = np.maximum(0, wanted - held)

    def by_attacker(places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sort places by attacker; return also each one's attacker, and its rank among theirs."""
        owner = np.searchsorted(bounds, places, side="right") - 1
        order = np.argsort(owner, kind="stable")
        places, owner = places[order], owner[order]
        return places, owner, np.arange(len(owner)) - np.searchsorted(owner, owner)

    free = n_dealt + np.flatnonzero(fits[n_dealt:])
    honest = np.flatnonzero(fits[:first])
    useful, owner, place = by_attacker(first + np.flatnonzero(fits[first:n_dealt]))
    surplus = useful[place >= wanted[owner]]
    donors = np.concatenate([rng.permutation(free), rng.permutation(honest), surplus])
    useless = first + np.flatnonzero(~fits[first:n_dealt])
    if is_by_class:  # shards are sorted by class: give away examples of any
        useless = rng.permutation(useless)
    useless, owner, place = by_attacker(useless)
    given = useless[place < missing[owner]]
    taken = donors[: len(given)]
    rows[given], rows[taken] = rows[taken], rows[given]
