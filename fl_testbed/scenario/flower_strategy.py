"""A Flower strategy in a scenario, named by the place of its class; it runs unchanged."""

import logging
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from fl_testbed.scenario.own_specs import PATH, OwnSpec
from fl_testbed.scenario.reweightings import NoReweightingSpec
from fl_testbed.scenario.spec import BY_KIND, ORACLE
from fl_testbed.scenario.strategy import StrategySpec
from fl_testbed.scenario.users_code import OwnCodeError
from strategies.memory import can_go_on

TAKES_ALL = {
    "fraction_train": 1.0,
    "fraction_evaluate": 0.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 0,
    "min_available_nodes": 1,
}
"""Arguments of Flower's strategies: all clients that the engine has sampled train, and none
evaluates, because the engine does."""


class FlowerStrategySpec(OwnSpec):
    """Any Flower strategy: a class, or a function that returns one."""

    kind: Literal["flower"]  # pyright: ignore[reportIncompatibleVariableOverride]
    path: Annotated[str, Field(json_schema_extra={"pattern": PATH})]  # package.module:name
    weight_by: Literal["clients", "examples"] = "examples"  # prior weights to compare with
    leave_one_out: bool = False  # ask what it would do without each client: n more aggregations
    place: ClassVar[str] = "path"
    reweighting: ClassVar[NoReweightingSpec] = NoReweightingSpec()
    is_oracle: ClassVar[bool] = False
    can_be_foreseen: ClassVar[bool] = False  # it may remember, or draw random numbers
    selects: ClassVar[bool] = False  # inferred weights are never quite 0 by choice
    needs_server_data: ClassVar[bool] = False  # it could not be given any

    @property
    def rule_name(self) -> str:
        """The class's name."""
        return self.code.name

    @property
    def can_resume(self) -> bool:
        """Whether what it carries from round to round can be saved and restored."""
        return can_go_on(self.build())

    @property
    def asks_how_many(self) -> bool:
        """Whether it is told how many clients attack."""
        return self.args.get("num_malicious_nodes") == ORACLE

    def told(self, n_attackers: int) -> Self:
        """Return a copy that is told this number of attackers."""
        return self.model_copy(update={"args": self.args | {"num_malicious_nodes": n_attackers}})

    def n_assumed(self, n: int) -> int | None:
        """Return how many malicious clients it assumes, where its arguments say so."""
        return self.args.get("num_malicious_nodes")

    def check(self, n: int, n_judged: int | None = None) -> None:
        """Build it once, to see that it can be.

        Raises:
            OwnCodeError: If it cannot be built, or cannot work on samples of n clients.
        """
        strategy = self.build()
        share = self.args.get("fraction_evaluate", 0)
        if share:
            text = "clients evaluate nothing here, the server tests the model"
            raise OwnCodeError(f"args.fraction_evaluate needs 0, got {share}: {text}")
        while strategy is not None:  # in a wrapper, the inner strategy takes the sample
            for key in ("min_available_nodes", "min_train_nodes"):
                if (needed := getattr(strategy, key, 0)) > n:
                    text = f"would wait for ever with {key}={needed}, as a round's sample has {n}"
                    raise OwnCodeError(f"{type(strategy).__name__} {text} clients")
            strategy = getattr(strategy, "strategy", None)

    def build(self) -> Any:
        """Return the strategy."""
        logging.getLogger("flwr").setLevel(logging.ERROR)  # it warns of what TAKES_ALL says
        accepted = {k: v for k, v in TAKES_ALL.items() if self.names(k)}
        return self.function(**accepted | self.args)

    def flaw_of(self, result: Any, *args: Any, **named: Any) -> str:
        """Require the methods that the round loop calls."""
        methods = ("configure_train", "aggregate_train", "configure_evaluate", "aggregate_evaluate")
        missing = [name for name in methods if not callable(getattr(result, name, None))]
        return f"must return a Flower strategy, this has no {', '.join(missing)}" if missing else ""


AnyStrategySpec = Annotated[StrategySpec | FlowerStrategySpec, BY_KIND]
