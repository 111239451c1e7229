"""Server side of a scenario: aggregation rules and reweightings."""

from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from clients.shard import Role
from clients.training import LocalTraining
from fl_testbed.data import Population
from fl_testbed.scenario.spec import CountOrFraction, Spec, count_of
from strategies.aggregation import (
    Aggregator,
    fltrust,
    krum,
    krum_bound,
    mean,
    multi_krum,
    multi_krum_bound,
    norm_clipping,
    trimmed_mean,
    trimmed_mean_bound,
)
from strategies.reweighting import Reweighter, agnostic, jtt, q_fedavg


class RuleSpec(Spec):
    """What every aggregation rule answers."""

    selects: ClassVar[bool] = False
    """Whether a weight of 0 means that the rule chose not to hear a client."""
    needs_server_data: ClassVar[bool] = False

    def check(self, n: int) -> None:
        """Raise TooFewClientsError if the rule cannot work on a sample of n clients."""

    def build(self, n: int) -> Aggregator:
        """Return the rule for samples of n clients, its parameters bound."""
        raise TypeError(f"{type(self).__name__} has no rule")


class MeanSpec(RuleSpec):
    """Federated averaging: no defence."""

    kind: Literal["mean"]

    def build(self, n: int) -> Aggregator:
        """Return the mean."""
        return mean


class KrumSpec(RuleSpec):
    """Krum: the one update with the tightest neighbourhood."""

    kind: Literal["krum"]
    n_malicious: CountOrFraction
    selects: ClassVar[bool] = True

    def check(self, n: int) -> None:
        """Need n >= 2f + 3."""
        krum_bound(n, count_of(self.n_malicious, n))

    def build(self, n: int) -> Aggregator:
        """Return Krum with f bound."""
        return partial(krum, n_malicious=count_of(self.n_malicious, n))


class MultiKrumSpec(RuleSpec):
    """Multi-Krum: the mean of the n - f updates with the tightest neighbourhoods."""

    kind: Literal["multi_krum"]
    n_malicious: CountOrFraction
    n_selected: PositiveInt | None = None
    selects: ClassVar[bool] = True

    def check(self, n: int) -> None:
        """Need n >= 2f + 3 and n >= m."""
        multi_krum_bound(n, count_of(self.n_malicious, n), self.n_selected)

    def build(self, n: int) -> Aggregator:
        """Return Multi-Krum with f and m bound."""
        return partial(
            multi_krum, n_malicious=count_of(self.n_malicious, n), n_selected=self.n_selected
        )


class TrimmedMeanSpec(RuleSpec):
    """Trimmed mean: per coordinate, without the f smallest and f largest values."""

    kind: Literal["trimmed_mean"]
    n_malicious: CountOrFraction

    def check(self, n: int) -> None:
        """Need n >= 2f + 1."""
        trimmed_mean_bound(n, count_of(self.n_malicious, n))

    def build(self, n: int) -> Aggregator:
        """Return the trimmed mean with f bound."""
        return partial(trimmed_mean, n_malicious=count_of(self.n_malicious, n))


class NormClippingSpec(RuleSpec):
    """Norm clipping: no update longer than a bound (the median norm unless given)."""

    kind: Literal["norm_clipping"]
    max_norm: PositiveFloat | None = None

    def build(self, n: int) -> Aggregator:
        """Return clipping with its bound."""
        return partial(norm_clipping, max_norm=self.max_norm)


class FLTrustSpec(RuleSpec):
    """FLTrust: trust a client as far as it agrees with the server's root data."""

    kind: Literal["fltrust"]
    selects: ClassVar[bool] = True
    needs_server_data: ClassVar[bool] = True

    def build(self, n: int) -> Aggregator:
        """Return FLTrust."""
        return fltrust


AggregationSpec = Annotated[
    MeanSpec | KrumSpec | MultiKrumSpec | TrimmedMeanSpec | NormClippingSpec | FLTrustSpec,
    Field(discriminator="kind"),
]


class ReweightingSpec(Spec):
    """What every reweighting answers."""

    def build(self, population: Population, training: LocalTraining) -> Reweighter | None:
        """Return the reweighting, its parameters bound."""
        raise TypeError(f"{type(self).__name__} has no reweighting")


class NoReweightingSpec(ReweightingSpec):
    """No lift: every client keeps its prior weight."""

    kind: Literal["none"] = "none"

    def build(self, population: Population, training: LocalTraining) -> Reweighter | None:
        """Return None."""
        return None


class AgnosticSpec(ReweightingSpec):
    """Agnostic federated averaging by exponentiated gradient on the clients' losses."""

    kind: Literal["agnostic"]
    step_size: PositiveFloat

    def build(self, population: Population, training: LocalTraining) -> Reweighter | None:
        """Return the rule with its step size bound."""
        return partial(agnostic, step_size=self.step_size)


class QFedAvgSpec(ReweightingSpec):
    """q-FedAvg: weights ∝ loss^q and the paper's own step."""

    kind: Literal["q_fedavg"]
    q: NonNegativeFloat
    lipschitz: PositiveFloat | None = None  # 1 / training.lr unless given

    def build(self, population: Population, training: LocalTraining) -> Reweighter | None:
        """Return the rule with q and L bound."""
        return partial(q_fedavg, q=self.q, lipschitz=self.lipschitz or 1 / training.lr)


class JTTSpec(ReweightingSpec):
    """Client-level JTT: warm up, flag the clients of largest loss, train again with them lifted."""

    kind: Literal["jtt"]
    n_flagged: PositiveInt
    factor: PositiveFloat
    warm_up_rounds: PositiveInt = 5
    restart: bool = True
    oracle: Literal["ideal", "worst_case"] | None = None  # flag all minority / all attackers

    def build(self, population: Population, training: LocalTraining) -> Reweighter | None:
        """Return the rule; an oracle is told whom to flag."""
        roles = {"ideal": Role.HONEST_MINORITY, "worst_case": Role.POISONED}
        return partial(
            jtt,
            warm_up_rounds=self.warm_up_rounds,
            n_flagged=self.n_flagged,
            factor=self.factor,
            restart=self.restart,
            flag_instead=population.clients(roles[self.oracle]) if self.oracle else None,
        )


LiftSpec = Annotated[
    NoReweightingSpec | AgnosticSpec | QFedAvgSpec | JTTSpec, Field(discriminator="kind")
]


class StrategySpec(Spec):
    """What the server does with the updates of a round."""

    aggregation: AggregationSpec
    reweighting: LiftSpec = NoReweightingSpec()
    order: Literal["filter_then_lift", "lift_then_filter"] = "filter_then_lift"
    weight_by: Literal["clients", "examples"] = "clients"
    on_too_few: Literal["skip_round", "stop"] = "skip_round"

    @property
    def is_oracle(self) -> bool:
        """Whether any part of it is told the truth about clients."""
        return getattr(self.reweighting, "oracle", None) is not None
