"""Client side of a scenario: sampling, training, and what models are judged by."""

from collections.abc import Iterator
from numbers import Integral
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt

from clients.training import LocalTraining
from fl_testbed.scenario.faults import short
from fl_testbed.scenario.own_specs import OwnSpec
from fl_testbed.scenario.spec import BY_KIND, Contradiction, Fraction, Spec, share_of


class SamplingSpec(Spec):
    """Which clients take part in a round, drawn anew for each."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0  # of all, rounded down: 6 for 0.25 of 26
    attackers: NonNegativeInt | None = None  # exact number in each sample; none: left to chance

    def count(self, n_clients: int) -> int:
        """Return the size of a round's sample: at least one client."""
        return max(1, share_of(self.fraction, n_clients))

    def contradictions(self, n_honest: int, n_attackers: int) -> Iterator[Contradiction]:
        """Yield what no single key shows, as (key, text)."""
        n, k = self.count(n_honest + n_attackers), self.attackers
        if k is None:
            return
        most, least = min(n, n_attackers), max(0, n - n_honest)
        if not least <= k <= most:
            who = f"a sample of {n} from {n_honest} honest clients and {n_attackers} attackers"
            yield "attackers", f"needs from {least} to {most} for {who}, got {k}"


class OwnSamplingSpec(OwnSpec, SamplingSpec):
    """Your own client selection: file.py:name or package.module:name."""

    facts = frozenset({"n", "clients", "round_", "rng", "n_examples", "losses", "weights"})

    def contradictions(self, n_honest: int, n_attackers: int) -> Iterator[Contradiction]:
        """Yield what no single key shows, as (key, text)."""
        if self.attackers is not None:
            yield "attackers", f"is for random samples, but {self.kind} selects: leave it out"

    def choose(self, n_clients: int, **facts: Any) -> list[int]:
        """Return the ids that the function selects.

        Raises:
            OwnCodeError: If they are no valid sample, or the function fails.
        """
        clients = np.arange(n_clients)
        chosen = self.called(n=self.count(n_clients), clients=clients, **facts)
        ids = chosen.tolist() if isinstance(chosen, np.ndarray) else chosen
        if not isinstance(ids, list) or not _is_sample(ids, n_clients):
            text = f"a list or array of client ids from 0 to {n_clients - 1}, none twice"
            raise self.code.refused(f"must return {text}, returned {short(ids)}")
        return sorted(map(int, ids))


def _is_sample(ids: list[Any], n_clients: int) -> bool:
    are_ids = all(isinstance(i, Integral) and not isinstance(i, bool) for i in ids)  # no bool mask
    return are_ids and 0 < len(ids) == len(set(ids)) and min(ids) >= 0 and max(ids) < n_clients


AnySamplingSpec = Annotated[SamplingSpec | OwnSamplingSpec, BY_KIND]


Cohort = PositiveInt | Literal["auto"]
"""How many clients train at once: ``auto`` is 1 on a CPU, and on a GPU as many as fit."""


class TrainingSpec(Spec):
    """How clients train, and the server on its data; JTT's restart also restarts ``lr_decay``."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: PositiveFloat  # learning rate of the optimizer
    lr_decay: Annotated[float, Field(gt=0, le=1)] | None = None  # factor on lr from round to round
    batch_size: PositiveInt  # examples in a step
    local_epochs: PositiveInt = 1  # passes over a client's examples in a round
    local_steps: PositiveInt | None = None  # steps in a round, in place of local_epochs
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0  # momentum of sgd
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # weight decay of the optimizer
    cohort: Cohort = "auto"  # most clients trained at once; > 1 is faster and changes the last bits

    def build(self, round_: int = 1) -> LocalTraining:
        """Return the settings of a round, from 1, in the clients' terms."""
        given = self.model_dump(exclude={"cohort", "lr_decay"})
        if self.lr_decay is not None:
            given["lr"] = self.lr * self.lr_decay ** (round_ - 1)
        return LocalTraining(**given)


class ServerBiasSpec(Spec):
    """How large a share of the server's data one class has; the other classes share the rest in
    the proportions of all data."""

    label: NonNegativeInt  # the class, by its number
    share: Fraction  # 0: the server has none of the class, 1: nothing else


class ServerDataSpec(Spec):
    """Training examples that the server keeps for itself, for rules that need some."""

    n_examples: NonNegativeInt = 0  # drawn from the training set; no client holds them
    minority_fraction: Fraction = 0.0  # share of these from the minority
    bias: ServerBiasSpec | None = None  # none: classes as they happen to be drawn


class RecordUpdatesSpec(Spec):
    """Keep what clients send, so that other rules can be tried on the very same updates."""

    dtype: Literal["float16", "float32"] = "float32"  # float16: as if clients sent half precision


def _switch(value: Any) -> Any:
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


RecordUpdates = Annotated[
    RecordUpdatesSpec | None,
    BeforeValidator(_switch, json_schema_input_type=bool | RecordUpdatesSpec | None),
]
"""``true`` for the defaults."""


N_FINAL = 5  # evaluations that final figures average, unless a scenario says otherwise


class EvaluationSpec(Spec):
    """When and on how much the global model is tested."""

    every: PositiveInt = 1  # rounds from test to test; the last round is always tested
    max_examples: PositiveInt | None = None  # use only the first test examples; all by default
    split: Literal["test", "validation"] = "test"  # validation: for choosing settings
    n_validation: NonNegativeInt = 0  # training examples that nobody trains on
    n_final: PositiveInt | None = None  # last evaluations that final figures average; 5 by default
    n_clients: NonNegativeInt = 1_000  # judge at most this many honest clients one by one
