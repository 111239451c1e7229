"""How the server moves along a round's update, as a scenario names it."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat

from fl_testbed.scenario.own_specs import OwnSpec, flaw_of_tensors
from fl_testbed.scenario.spec import BY_KIND, FunctionSpec
from strategies import server_optimizers as optimizers
from strategies.server_optimizers import OPTIMIZER_FACTS, Move

Decay = Annotated[float, Field(ge=0, lt=1)]


class ServerSgdSpec(FunctionSpec):
    """A server learning rate; with momentum, FedAvgM."""

    kind: Literal["sgd"]
    lr: PositiveFloat = 1.0
    momentum: Decay = 0.0
    function = staticmethod(optimizers.sgd)


class AdagradSpec(FunctionSpec):
    """FedAdagrad: smaller steps where all updates so far were large."""

    kind: Literal["adagrad"]
    lr: PositiveFloat
    beta_1: Decay = 0.0
    tau: PositiveFloat = 1e-3
    function = staticmethod(optimizers.adagrad)


class TwoMomentsSpec(FunctionSpec):
    """Optimizers that keep running means of updates and of their squares."""

    lr: PositiveFloat
    beta_1: Decay = 0.9
    beta_2: Decay = 0.99
    tau: PositiveFloat = 1e-3


class AdamSpec(TwoMomentsSpec):
    """FedAdam: smaller steps where recent updates were large."""

    kind: Literal["adam"]
    function = staticmethod(optimizers.adam)


class YogiSpec(TwoMomentsSpec):
    """FedYogi: Adam that forgets large updates slowly."""

    kind: Literal["yogi"]
    function = staticmethod(optimizers.yogi)


class OwnServerOptimizerSpec(OwnSpec):
    """Your own server optimizer: file.py:name or package.module:name."""

    facts = OPTIMIZER_FACTS
    first = "the round's update"
    reads_only = True

    def flaw_of(self, result: Any, *args: Any, **named: Any) -> str:
        """Require a Move whose update is as long as the round's, and finite."""
        wrong = flaw_of_tensors(result, Move, {"update": tuple(args[0].shape)})
        if not wrong and not result.update.isfinite().all():
            return "must return a finite update, returned one with NaN or infinity"
        return wrong


AnyServerOptimizerSpec = Annotated[
    ServerSgdSpec | AdagradSpec | AdamSpec | YogiSpec | OwnServerOptimizerSpec, BY_KIND
]
