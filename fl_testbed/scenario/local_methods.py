"""Methods inside clients, as a scenario names them."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from clients.local import (
    Ditto,
    ExampleGroupDro,
    ExampleJtt,
    FedProx,
    Lesson,
    LocalMethod,
    LocalRound,
    WorkerMomentum,
)
from clients.training import Objective
from fl_testbed.scenario.own_specs import OwnSpec, flaw_of_shard, flaw_of_tensors
from fl_testbed.scenario.spec import BY_KIND, FunctionSpec


class LocalMethodSpec(FunctionSpec):
    """What all methods inside clients have in common."""

    is_oracle: ClassVar[bool] = False
    """Whether clients are told which groups their examples belong to."""
    is_personal: ClassVar[bool] = False
    """Whether every client keeps a model of its own."""
    remembers: ClassVar[bool] = True
    """Whether clients keep something for their next round."""
    keeps_parameters: ClassVar[bool] = False
    """Whether every client keeps as many numbers as the model has."""

    def build(self) -> LocalMethod:
        """Return the method."""
        return self.bind()()


class ExampleJttSpec(LocalMethodSpec):
    """JTT inside each client: copies of the examples that the model gets wrong after a warm-up."""

    function = ExampleJtt
    kind: Literal["example_jtt"]
    n_copies: PositiveInt  # λ: a flagged example is seen λ + 1 times
    warm_up_rounds: PositiveInt = 5  # rounds before examples are flagged, once
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5  # flagged if the label is less probable


class ExampleGroupDroSpec(LocalMethodSpec):
    """Group DRO inside each client, over the groups of its own examples: an oracle for groups."""

    function = ExampleGroupDro
    kind: Literal["example_group_dro"]
    step_size: PositiveFloat  # step size of the groups' weights
    is_oracle = True


class DittoSpec(LocalMethodSpec):
    """Ditto: a personal model in every client, pulled towards the common one."""

    function = Ditto
    kind: Literal["ditto"]
    pull: NonNegativeFloat = 1.0  # λ; 0: each trains alone
    is_personal = True
    keeps_parameters = True


class FedProxSpec(LocalMethodSpec):
    """FedProx: each client's model is pulled towards the one that it received."""

    function = FedProx
    kind: Literal["fedprox"]
    pull: NonNegativeFloat  # μ; 0: plain training
    remembers = False


class WorkerMomentumSpec(LocalMethodSpec):
    """Worker momentum: each client sends a running average of its updates."""

    function = WorkerMomentum
    kind: Literal["worker_momentum"]
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.9  # what the average keeps of the round before
    keeps_parameters = True


class OwnLocalMethodSpec(OwnSpec, LocalMethodSpec):
    """Your own method inside clients: file.py:name or package.module:name."""

    uses_groups: bool = False  # whether it reads shard.groups: it is then marked as an oracle
    has_personal: bool = False  # whether its lessons have a personal model
    facts = frozenset(LocalRound._fields) - {"shard"}
    first = "a client's shard"
    reads_only = True
    keeps_parameters = True  # assumed: it cannot be known

    @property
    def is_oracle(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the scenario says."""
        return self.uses_groups

    @property
    def is_personal(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the scenario says."""
        return self.has_personal

    def build(self) -> LocalMethod:
        """Return this spec: it has the method ``lesson`` itself."""
        return self

    def lesson(self, told: LocalRound) -> Lesson:
        """Return what the function makes of a round."""
        facts = told._asdict()
        return self.called(facts.pop("shard"), **facts)

    def flaw_of(self, result: Any, *args: Any, **named: Any) -> str:
        """Require a Lesson whose examples have the shapes of the client's."""
        if not isinstance(result, Lesson):
            return flaw_of_tensors(result, Lesson, {})
        for name in ("objective", "personal"):
            given = getattr(result, name)
            if given is not None and not isinstance(given, Objective):
                text = f"must return {name} as an object with begin and loss"
                return f"{text}, returned {type(given).__name__}"
        if not callable(result.kept):
            return f"must return kept as a function, returned {type(result.kept).__name__}"
        if result.personal is not None and not self.has_personal:
            return "returned a personal model: set has_personal: true in the scenario"
        return flaw_of_shard(result.shard, args[0])


AnyLocalMethodSpec = Annotated[
    ExampleJttSpec
    | ExampleGroupDroSpec
    | DittoSpec
    | FedProxSpec
    | WorkerMomentumSpec
    | OwnLocalMethodSpec,
    BY_KIND,
]
