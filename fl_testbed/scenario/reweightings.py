"""Reweightings that a scenario can name."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from clients.training import LocalTraining
from fl_testbed.scenario.own_specs import OwnSpec, flaw_of_tensors, flaw_of_weights
from fl_testbed.scenario.spec import BY_KIND, FunctionSpec, NoneSpec
from strategies import reweighting
from strategies.pipeline import Pipeline
from strategies.reweighting import Lift, Reweighter

Holdings = Callable[[], Tensor]
"""Returns how many examples of each group every client holds, shape (clients, groups)."""


class ReweightingSpec(FunctionSpec):
    """What all reweightings have in common."""

    is_oracle: ClassVar[bool] = False
    """Whether it is told the truth about clients."""

    @property
    def changes_step(self) -> bool:
        """Whether it also decides how far the model moves, besides whom it lifts."""
        return False

    def build(self, training: LocalTraining, holdings: Holdings) -> Reweighter | None:
        """Return the reweighting, its arguments bound."""
        return self.bind()


class NoReweightingSpec(NoneSpec, ReweightingSpec):
    """No lift: every client keeps its prior weight."""


class AgnosticSpec(ReweightingSpec):
    """Agnostic federated averaging by exponentiated gradient on the clients' losses."""

    kind: Literal["agnostic"]
    step_size: PositiveFloat
    function = staticmethod(reweighting.agnostic)


class AflSpec(ReweightingSpec):
    """AFL: agnostic federated learning by projected gradient on the clients' losses."""

    kind: Literal["afl"]
    step_size: PositiveFloat
    function = staticmethod(reweighting.afl)


class DrfaSpec(ReweightingSpec):
    """DRFA: clients drawn from a mixture that moves once per round, for all local steps."""

    kind: Literal["drfa"]
    step_size: PositiveFloat
    local_steps: PositiveInt
    n_drawn: PositiveInt | None = None
    function = staticmethod(reweighting.drfa)


class QFedAvgSpec(ReweightingSpec):
    """q-FedAvg: weights ∝ loss^q and the paper's own step."""

    kind: Literal["q_fedavg"]
    q: NonNegativeFloat
    lipschitz: PositiveFloat | None = Field(None, description="1 / training.lr unless given.")
    own_step: bool = True
    function = staticmethod(reweighting.q_fedavg)

    @property
    def changes_step(self) -> bool:
        """Whether the step is the paper's."""
        return self.own_step

    def build(self, training: LocalTraining, holdings: Holdings) -> Reweighter | None:
        """Return the rule, by default with the constant of the clients' learning rate."""
        return self.bind(lipschitz=self.lipschitz or 1 / training.lr)


class TiltedSpec(ReweightingSpec):
    """TERM: weights ∝ exp(tilt × loss); a positive tilt is fair, a negative one robust."""

    kind: Literal["tilted"]
    tilt: float
    smoothing: Annotated[float, Field(gt=0, le=1)] | None = None
    function = staticmethod(reweighting.tilted)


class FedMGDAPlusSpec(ReweightingSpec):
    """FedMGDA+: the shortest mixture of equally long updates, with weights near the prior ones."""

    kind: Literal["fedmgda_plus"]
    epsilon: Annotated[float, Field(ge=0, le=1)]
    length: PositiveFloat | None = None
    function = staticmethod(reweighting.fedmgda_plus)

    @property
    def changes_step(self) -> bool:
        """Always: it has a step of its own."""
        return True


class GroupDroSpec(ReweightingSpec):
    """Group DRO with known groups: an oracle for who holds which group."""

    kind: Literal["group_dro"]
    step_size: PositiveFloat
    adjustment: NonNegativeFloat = 0.0
    function = staticmethod(reweighting.group_dro)
    is_oracle = True

    def build(self, training: LocalTraining, holdings: Holdings) -> Reweighter | None:
        """Return the rule, told what every client holds."""
        return self.bind(counts=holdings())


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
    function = staticmethod(reweighting.jtt)

    def build(self, training: LocalTraining, holdings: Holdings) -> Reweighter | None:
        """Return the rule, which is told no confidences if it goes by losses."""
        return self.bind(**{"confidences": None} if self.flag_by == "loss" else {})


class OwnReweightingSpec(OwnSpec, ReweightingSpec):
    """Your own reweighting: file.py:name or package.module:name."""

    facts = Pipeline.REWEIGHT_FACTS
    reads_only = True

    def flaw_of(self, result: Any, *args: Any, **named: Any) -> str:
        """Require a Lift, with a weight for each client."""
        n_clients = [
            len(named[fact]) for fact in ("prior", "losses", "clients", "updates") if fact in named
        ]
        told = ["weights"] + ["lengths"] * (getattr(result, "lengths", None) is not None)
        needed = dict.fromkeys(told, (n_clients[0],)) if n_clients else {}
        wrong = flaw_of_tensors(result, Lift, needed)
        return wrong or flaw_of_weights(result.weights, may_be_none=False)


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
