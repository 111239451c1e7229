"""What every update attack returns, and what its attackers may know."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from strategies.memory import NO_MEMORY, Memory
from strategies.shapes import Float, Tensor


class Knowledge(StrEnum):
    """Which updates of the round attackers see before they send their own."""

    OMNISCIENT = "omniscient"
    """Those of all honest clients."""
    COLLUDING = "colluding"
    """Their own, as they trained them: on poison if they have one, unless the attack has them train
    on clean data too."""
    BLIND = "blind"
    """None: each sees its own alone."""


class Forged(NamedTuple):
    """What attackers send."""

    updates: Float[Tensor, "f d"]
    """Local minus global parameters, one row per attacker; equal rows may share memory."""
    memory: Memory = NO_MEMORY
    """State that an attack which names ``memory`` is given back in its next round."""


FACTS = frozenset(
    {
        "seen",
        "sample",
        "clean",
        "seen_clients",
        "is_minority",
        "n_clients",
        "n_attackers",
        "n_assumed",
        "round_",
        "received",
        "layers",
        "defence",
        "memory",
        "rng",
    }
)
"""The names of what attackers may know of a round."""

UNTOLD = frozenset({"seen", "sample", "clean", "seen_clients", "is_minority", "defence", "memory"})
"""Those facts that blind attackers, each of whom acts alone, are not told."""

Attack = Callable[..., Forged]
"""An attack. Its first parameter is ``own``, the updates that its attackers would send; its other
parameters name what it needs of the attackers' knowledge:

* ``seen`` (m, d): the updates they see, by their knowledge;
* ``sample`` (k, d): the updates whose mean and spread they take: ``seen``, or everybody's;
* ``clean`` (f, d): what they would send had they trained on clean data;
* ``seen_clients`` (m,), ``is_minority`` (m,): ids and membership of the rows of ``seen``;
* ``n_clients``, ``n_attackers``: how many were asked in this round, and how many of these attack;
* ``n_assumed``: how many malicious clients the server's rule assumes;
* ``round_``: the round, from 1;
* ``received`` (d,): the global parameters;
* ``layers``: where each array of parameters stands in a row, slices by its name;
* ``defence``: from one update that all attackers would send to what the server's rule makes of it;
* ``memory``, ``rng``.
"""

Defence = Callable[[Float[Tensor, " d"]], Float[Tensor, " d"]]
"""The server's update if every attacker sent this one; 0 if the server would skip the round."""


@dataclass(frozen=True)
class Schedule:
    """In which rounds attackers attack: first, first + every, … up to last. In the others they are
    honest, on clean data."""

    first: int = 1
    last: int | None = None
    every: int = 1

    def is_active(self, round_: int) -> bool:
        """Whether attackers attack in a round, counted from 1."""
        if round_ < self.first or (self.last is not None and round_ > self.last):
            return False
        return (round_ - self.first) % self.every == 0


def repeated(update: Float[Tensor, " d"], own: Float[Tensor, "f d"]) -> Float[Tensor, "f d"]:
    """Return one update for every attacker, without a copy."""
    return update.expand(len(own), -1)
