"""Server side of a scenario: reweightings, and how they combine with rules."""

import inspect
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from clients.shard import Role
from clients.training import LocalTraining
from fl_testbed.data import Population
from fl_testbed.scenario.own_code import BY_KIND, OURS_TAG, OWN_TAG, WHOSE, OwnSpec, misshapen
from fl_testbed.scenario.rules import AggregationSpec, PreAggregationSpec
from fl_testbed.scenario.spec import Spec
from strategies.aggregation import Aggregator
from strategies.pipeline import Pipeline
from strategies.pre_aggregation import PreAggregator
from strategies.reweighting import Lift, Reweighter, agnostic, jtt, q_fedavg


class ReweightingSpec(Spec):
    """What every reweighting answers."""

    rule: ClassVar[Reweighter]

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
    rule = staticmethod(agnostic)

    def build(self, population: Population, training: LocalTraining) -> Reweighter | None:
        """Return the rule with its step size bound."""
        return partial(agnostic, step_size=self.step_size)


class QFedAvgSpec(ReweightingSpec):
    """q-FedAvg: weights ∝ loss^q and the paper's own step."""

    kind: Literal["q_fedavg"]
    q: NonNegativeFloat
    lipschitz: PositiveFloat | None = Field(None, description="1 / training.lr unless given.")
    rule = staticmethod(q_fedavg)

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
    oracle: Literal["ideal", "worst_case"] | None = Field(
        None, description="Flag all of the minority (ideal) or all attackers (worst_case)."
    )
    rule = staticmethod(jtt)

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


class OwnReweightingSpec(OwnSpec, ReweightingSpec):
    """A reweighting of one's own, file.py:name or package.module:name."""

    facts = Pipeline.REWEIGHT_FACTS

    def build(self, population: Population, training: LocalTraining) -> Reweighter | None:
        """Return the function with its arguments bound."""
        return self.with_args()

    def complaint(self, result: Any, *args: Any) -> str:
        """Need a Lift."""
        return misshapen(result, Lift, {})


OurLift = Annotated[NoReweightingSpec | AgnosticSpec | QFedAvgSpec | JTTSpec, BY_KIND, OURS_TAG]
LiftSpec = Annotated[OurLift | Annotated[OwnReweightingSpec, OWN_TAG], WHOSE]


class StrategySpec(Spec):
    """What the server does with the updates of a round."""

    pre_aggregation: list[PreAggregationSpec] = Field(default_factory=list)
    aggregation: AggregationSpec
    reweighting: LiftSpec = NoReweightingSpec()
    order: Literal["filter_then_lift", "lift_then_filter"] = "filter_then_lift"
    weight_by: Literal["clients", "examples"] = "clients"
    on_too_few: Literal["skip_round", "stop"] = "skip_round"

    @property
    def is_oracle(self) -> bool:
        """Whether any part of it is told the truth about clients."""
        return getattr(self.reweighting, "oracle", None) is not None

    @property
    def can_be_foreseen(self) -> bool:
        """Whether the rule looks at nothing but the updates of the round."""
        asked = inspect.signature(self.aggregation.rule).parameters.keys()
        return not asked & {"clients", "evaluate", "losses", "memory", "reference"}

    def check(self, n: int) -> None:
        """Raise TooFewClientsError if a step cannot work on what a sample of n clients leaves."""
        rows = n
        for step in self.pre_aggregation:
            step.check(rows, n)
            rows = step.n_rows(rows)
        self.aggregation.check(rows, n)

    def build_pre_aggregation(self, n: int) -> list[PreAggregator]:
        """Return the steps before the rule for samples of n clients."""
        return [step.build(n) for step in self.pre_aggregation]

    def build_aggregation(self, n: int) -> Aggregator:
        """Return the rule for samples of n clients."""
        return self.aggregation.build(n)
