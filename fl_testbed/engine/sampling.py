"""Which clients take part in a round, and which of them drop out."""

import math

import numpy as np
import torch
from torch import Tensor

from clients.shard import Role
from fl_testbed.data import Federation
from fl_testbed.scenario import Scenario
from fl_testbed.scenario.parts import OwnSamplingSpec
from strategies.ledger import RoundLedger
from strategies.randomness import Purpose, generator

LAST_KNOWN = ("losses", "weights")
"""What a user's own selection can be told of earlier rounds, one number for each client."""


class Sampler:
    """Draws the sample of each round and its dropouts, or lets a user's own function select."""

    def __init__(self, scenario: Scenario, federation: Federation) -> None:
        self._scenario, self._federation = scenario, federation
        own, n_clients = scenario.sampling, len(federation.population)
        told = [n for n in LAST_KNOWN if isinstance(own, OwnSamplingSpec) and own.names(n)]
        self._last_known = {name: np.full(n_clients, math.nan) for name in told}

    def sample(self, round_: int) -> list[int]:
        """Return the ids of a round's clients, in their order."""
        scenario, population = self._scenario, self._federation.population
        sampling, n_clients = scenario.sampling, len(population)
        rng = generator(scenario.seed, Purpose.SAMPLING, round_)
        if isinstance(sampling, OwnSamplingSpec):
            size = self._federation.partition.size
            facts = {name: last.copy() for name, last in self._last_known.items()}
            if sampling.names("n_examples"):
                facts["n_examples"] = np.array([size(client) for client in range(n_clients)])
            return sampling.choose(n_clients, round_=round_, rng=rng, **facts)
        if sampling.attackers is None:
            return sorted(rng.choice(n_clients, scenario.n_sampled, replace=False).tolist())
        attackers = population.clients(Role.POISONED)
        n_honest = scenario.n_sampled - sampling.attackers
        honest = rng.choice(attackers.start, n_honest, replace=False)
        drawn = rng.choice(attackers, sampling.attackers, replace=False)
        return sorted([*honest.tolist(), *drawn.tolist()])

    def dropouts(self, round_: int) -> set[int]:
        """Return the ids of all clients whose reply would be lost in a round, sampled or not."""
        clients = self._scenario.clients
        if clients.dropout is None and clients.dropout_of is None:
            return set()
        shares = clients.dropouts
        drawn = generator(self._scenario.seed, Purpose.DROPOUT, round_).random(len(shares))
        return set(np.flatnonzero(drawn < shares).tolist())

    def note(self, ledger: RoundLedger) -> None:
        """Keep the loss and the weight of each client of a round, for a user's own selection."""
        for entry in ledger.clients:
            believed = entry.believed_loss
            loss = entry.train_loss if math.isnan(believed) else believed
            for name, value in zip(LAST_KNOWN, (loss, entry.weight), strict=True):
                if name in self._last_known and not math.isnan(value):
                    self._last_known[name][entry.client] = value

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a user's own selection is told of earlier rounds."""
        return {name: torch.from_numpy(last.copy()) for name, last in self._last_known.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._last_known = {name: last.numpy().copy() for name, last in state.items()}
