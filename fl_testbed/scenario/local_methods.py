"""Methods inside clients, as a scenario names them."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from clients.local import Ditto, ExampleGroupDro, ExampleJtt, LocalMethod, WorkerMomentum
from fl_testbed.scenario.spec import Spec


class LocalMethodSpec(Spec):
    """What every method inside clients answers."""

    rule: ClassVar[type[LocalMethod]]
    is_oracle: ClassVar[bool] = False
    """Whether clients are told which group their examples are of."""
    is_personal: ClassVar[bool] = False
    """Whether every client keeps a model of its own."""
    keeps_parameters: ClassVar[bool] = False
    """Whether every client keeps as many numbers as the model has."""

    def build(self) -> LocalMethod:
        """Return the method."""
        return self.rule(**self.model_dump(exclude={"kind"}))


class ExampleJttSpec(LocalMethodSpec):
    """JTT inside each client: copies of the examples that the model gets wrong after a warm-up."""

    rule = ExampleJtt
    kind: Literal["example_jtt"]
    n_copies: PositiveInt  # λ: a flagged example is seen λ + 1 times
    warm_up_rounds: PositiveInt = 5  # before examples are flagged, once
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5  # flagged if the label is less probable


class ExampleGroupDroSpec(LocalMethodSpec):
    """Group DRO inside each client, over the groups of its own examples: an oracle for groups."""

    rule = ExampleGroupDro
    kind: Literal["example_group_dro"]
    step_size: PositiveFloat  # of the weights of groups
    is_oracle = True


class DittoSpec(LocalMethodSpec):
    """Ditto: a personal model in every client, pulled towards the common one."""

    rule = Ditto
    kind: Literal["ditto"]
    pull: NonNegativeFloat = 1.0  # λ; 0: each trains alone
    is_personal = True
    keeps_parameters = True


class WorkerMomentumSpec(LocalMethodSpec):
    """Worker momentum: each client sends a running average of its updates."""

    rule = WorkerMomentum
    kind: Literal["worker_momentum"]
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.9  # what the average keeps of the round before
    keeps_parameters = True


AnyLocalMethodSpec = Annotated[
    ExampleJttSpec | ExampleGroupDroSpec | DittoSpec | WorkerMomentumSpec,
    Field(discriminator="kind"),
]
