"""What the server does with a round, as a scenario says it: steps, rule, reweighting, oracle."""

import inspect
from collections.abc import Iterator, Set
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat

from clients.shard import Role
from fl_testbed.data import Population
from fl_testbed.scenario.reweightings import AnyReweightingSpec, NoReweightingSpec
from fl_testbed.scenario.rules import AnyRuleSpec, AnyStepSpec
from fl_testbed.scenario.server_optimizers import AnyServerOptimizerSpec
from fl_testbed.scenario.spec import Contradiction, Spec
from strategies.aggregation import TooFewClientsError
from strategies.aggregation.traits import traits_of
from strategies.oracle import Lifting, Oracle, Removing
from strategies.pre_aggregation import PreAggregator
from strategies.running_sum import KEEP_MIB


class OracleSpec(Spec):
    """The truth about clients, told to a reweighting or a rule for comparison."""

    lifting: Lifting = "standard"  # ideal: lifts the minority alone; worst_case: attackers alone
    removing: Annotated[
        Removing,
        Field(
            description="ideal: drops attackers alone; worst_case: the minority alone; shielded: "
            "the rule judges all but the minority, which is heard in full"
        ),
    ] = "standard"

    @property
    def is_told(self) -> bool:
        """Whether anything is corrected."""
        return (self.lifting, self.removing) != ("standard", "standard")

    def build(self, population: Population) -> Oracle:
        """Return what it knows and corrects."""
        minority = population.clients(Role.HONEST_MINORITY)
        attackers = population.clients(Role.POISONED)
        return Oracle(minority, attackers, self.lifting, self.removing)


class StrategySpec(Spec):
    """What the server does with the updates of a round."""

    pre_aggregation: list[AnyStepSpec] = Field(default_factory=list)  # steps before the rule
    aggregation: AnyRuleSpec  # the rule
    reweighting: AnyReweightingSpec = NoReweightingSpec()  # the lift
    server_optimizer: AnyServerOptimizerSpec | None = None  # by default the update is added
    order: Literal["filter_then_lift", "lift_then_filter"] = "filter_then_lift"  # which comes first
    losses: Literal["reported", "measured"] = "reported"  # measured: on the server's own data
    oracle: OracleSpec = OracleSpec()
    weight_by: Literal["clients", "examples"] = "clients"  # equal prior weights, or by examples
    on_too_few: Literal["skip_round", "stop"] = "skip_round"  # if a rule has too few usable replies
    keep_mib: NonNegativeFloat = KEEP_MIB  # with more, the mean keeps no updates: no contributions
    can_resume: ClassVar[bool] = True  # rules declare all that they carry from round to round

    @property
    def is_oracle(self) -> bool:
        """Whether any part of it is told who is who."""
        return self.oracle.is_told or self.reweighting.is_oracle

    @property
    def asks_how_many(self) -> bool:
        """Whether its rule, or a step before it, is told how many clients attack."""
        return any(part.asks_how_many for part in (*self.pre_aggregation, self.aggregation))

    def told(self, n_attackers: int) -> Self:
        """Return it with that number wherever ``n_malicious`` is ``oracle``."""
        parts = [part.told(n_attackers) for part in (*self.pre_aggregation, self.aggregation)]
        return self.model_copy(update={"pre_aggregation": parts[:-1], "aggregation": parts[-1]})

    @property
    def rule_name(self) -> str:
        """The rule's kind."""
        return self.aggregation.kind

    @property
    def selects(self) -> bool:
        """Whether a weight of 0 means that the rule chose not to hear a client."""
        return self.aggregation.selects

    @property
    def needs_server_data(self) -> bool:
        """Whether the rule trains or judges models on the server's own data."""
        return bool(self._asked & {"reference", "evaluate", "represent"})

    def n_assumed(self, n: int) -> int | None:
        """Return how many malicious clients the rule assumes in a sample of n, if it is told."""
        return self.aggregation.parameters(n).get("n_malicious")

    @property
    def _asked(self) -> Set[str]:
        """The facts and parameters that the rule names."""
        return inspect.signature(self.aggregation.function).parameters.keys()

    @property
    def can_be_foreseen(self) -> bool:
        """Whether the rule looks at nothing but the updates of the round and the received model."""
        unforeseen = {"clients", "confidences", "losses", "memory"}
        unforeseen |= {"evaluate", "reference", "represent", "respond"}
        return not self._asked & unforeseen

    def check(self, n: int, n_judged: int | None = None) -> None:
        """Raise TooFewClientsError if a step or the rule is left too few rows by a sample of n
        clients, of which ``n_judged`` are judged (all by default)."""
        rows = judged = n if n_judged is None else n_judged
        try:
            for step in self.pre_aggregation:
                step.check(rows, n)
                rows = step.n_rows(rows)
            self.aggregation.check(rows, n)
        except TooFewClientsError as fault:
            if rows == judged:
                raise
            text = f"{fault} (n counts rows: pre_aggregation makes {rows} of {judged} clients)"
            raise TooFewClientsError(text) from None

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield parts that do not go together, as (key, text)."""
        if self.pre_aggregation and "clients" in self._asked:
            text = f"mixes clients, but {self.rule_name} remembers each of them: leave it out"
            yield "pre_aggregation", text
        is_heard = (
            "prior" in self._asked
            or self.order == "lift_then_filter"
            or self.oracle.removing in ("ideal", "worst_case")  # these use the prior
        )
        if self.reweighting.kind != "none" and not is_heard:
            text = (
                f"would change nothing: {self.rule_name} has no parameter 'prior' for the lifted "
                "weights; add one that it weighs clients by, or set order: lift_then_filter"
            )
            yield "reweighting", text
        if traits_of(self.aggregation.function).takes_update_for_step:
            text = (
                f"{self.rule_name} takes its update for the model's step, but this changes the step"
            )
            if self.reweighting.changes_step:
                yield "reweighting", text
            if self.server_optimizer is not None:
                yield "server_optimizer", text

    def build_pre_aggregation(self, n: int) -> list[PreAggregator]:
        """Return the steps before the rule for samples of n clients."""
        return [step.build(n) for step in self.pre_aggregation]
