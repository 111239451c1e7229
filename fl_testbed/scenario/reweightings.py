"""Reweightings that a scenario can name."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from clients.training import LocalTraining
from fl_testbed.scenario.own_code import BY_KIND, OwnSpec, ill_weighted, misshapen
from fl_testbed.scenario.spec import Spec
from strategies import reweighting
from strategies.pipeline import Pipeline
from strategies.reweighting import Lift, Reweighter

Holdings = Callable[[], Tensor]
"""Returns how many examples of each group every client holds, shape (clients, groups)."""


class ReweightingSpec(Spec):
    """What every reweighting answers."""

    rule: ClassVar[Reweighter]
    is_oracle: ClassVar[bool] = False
    """Whether it is told the truth about clients."""

    @property
    def changes_step(self) -> bool:
        """Whether it says how far the model moves, beside whom it lifts."""
        return False

    def build(self, training: LocalTraining, holdings: Holdings) -> Reweighter | None:
        """Return the reweighting, its parameters bound."""
        return partial(self.rule, **self.model_dump(exclude={"kind"}, exclude_none=True))


class NoReweightingSpec(ReweightingSpec):
    """No lift: every client keeps its prior weight."""

    kind: Literal["none"] = "none"

    def build(self, training: LocalTraining, holdings: Holdings) -> Reweighter | None:
        """Return None."""
        return None


class AgnosticSpec(ReweightingSpec):
    """Agnostic federated averaging by exponentiated gradient on the clients' losses."""

    kind: Literal["agnostic"]
    step_size: PositiveFloat
    rule = staticmethod(reweighting.agnostic)


class AflSpec(ReweightingSpec):
    """AFL: agnostic federated learning by projected gradient on the clients' losses."""

    kind: Literal["afl"]
    step_size: PositiveFloat
    rule = staticmethod(reweighting.afl)


class DrfaSpec(ReweightingSpec):
    """DRFA: clients drawn from a mixture that moves once per round, for all local steps."""

    kind: Literal["drfa"]
    step_size: PositiveFloat
    local_steps: PositiveInt
    n_drawn: PositiveInt | None = None
    rule = staticmethod(reweighting.drfa)


class QFedAvgSpec(ReweightingSpec):
    """q-FedAvg: weights ∝ loss^q and the paper's own step."""

    kind: Literal["q_fedavg"]
    q: NonNegativeFloat
    lipschitz: PositiveFloat | None = Field(None, description="1 / training.lr unless given.")
    own_step: bool = True
    rule = staticmethod(reweighting.q_fedavg)

    @property
    def changes_step(self) -> bool:
        """Whether the step is the paper's."""
        return self.own_step

    def build(self, training: LocalTraining, holdings: Holdings) -> Reweighter | None:
        """Return the rule with its parameters bound."""
        lipschitz = self.lipschitz or 1 / training.lr
        return partial(self.rule, q=self.q, lipschitz=lipschitz, own_step=self.own_step)


class TiltedSpec(ReweightingSpec):
    """TERM: weights ∝ e to the tilt times the loss; fair above 0, robust below."""

    kind: Literal["tilted"]
    tilt: float
    smoothing: Annotated[float, Field(gt=0, le=1)] | None = None
    rule = staticmethod(reweighting.tilted)


class FedMGDAPlusSpec(ReweightingSpec):
    """FedMGDA+: the shortest mixture of updates of one length, close to the prior weights."""

    kind: Literal["fedmgda_plus"]
    epsilon: Annotated[float, Field(ge=0, le=1)]
    length: PositiveFloat | None = None
    rule = staticmethod(reweighting.fedmgda_plus)

    @property
    def changes_step(self) -> bool:
        """It does."""
        return True


class GroupDroSpec(ReweightingSpec):
    """Group DRO with known groups: an oracle for who holds which group."""

    kind: Literal["group_dro"]
    step_size: PositiveFloat
    adjustment: NonNegativeFloat = 0.0
    rule = staticmethod(reweighting.group_dro)
    is_oracle = True

    def build(self, training: LocalTraining, holdings: Holdings) -> Reweighter | None:
        """Return the rule, told what every client holds."""
        given = self.model_dump(exclude={"kind"})
        return partial(self.rule, counts=holdings(), **given)


class JTTSpec(ReweightingSpec):
    """Client-level JTT: warm up, flag the clients of largest loss, train again with them lifted."""

    kind: Literal["jtt"]
    factor: PositiveFloat
    n_flagged: PositiveInt | None = None
    threshold: NonNegativeFloat | None = None
    flag_by: Literal["loss", "confidence"] = "loss"
    adds_one: bool = False
    warm_up_rounds: PositiveInt = 5
    restart: bool = True
    rule = staticmethod(reweighting.jtt)

    def build(self, training: LocalTraining, holdings: Holdings) -> Reweighter | None:
        """Return the rule with its parameters bound."""
        unasked = {"confidences": None} if self.flag_by == "loss" else {}
        return partial(self.rule, **self.model_dump(exclude={"kind"}), **unasked)


class OwnReweightingSpec(OwnSpec, ReweightingSpec):
    """A reweighting of one's own, file.py:name or package.module:name."""

    facts = Pipeline.REWEIGHT_FACTS
    reads_only = True

    def build(self, training: LocalTraining, holdings: Holdings) -> Reweighter | None:
        """Return the function with its arguments bound."""
        return self.with_args()

    def complaint(self, result: Any, *args: Any, **named: Any) -> str:
        """Need a Lift, with a weight for each client."""
        n_clients = [
            len(named[fact]) for fact in ("prior", "losses", "clients", "updates") if fact in named
        ]
        told = ["weights"] + ["lengths"] * (getattr(result, "lengths", None) is not None)
        needed = dict.fromkeys(told, (n_clients[0],)) if n_clients else {}
        wrong = misshapen(result, Lift, needed)
        return wrong or ill_weighted(result.weights, may_be_none=False)


AnyReweightingSpec = Annotated[
    NoReweightingSpec
    | AgnosticSpec
    | AflSpec
    | DrfaSpec
    | QFedAvgSpec
    | TiltedSpec
    | FedMGDAPlusSpec
    | GroupDroSpec
    | JTTSpec
    | OwnReweightingSpec,
    BY_KIND,
]
