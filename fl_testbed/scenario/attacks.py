"""The attackers of a scenario: what they send, how they train, when, and what they know."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from clients import attacks
from clients.attacks import (
    FACTS,
    UNTOLD,
    Attack,
    Forged,
    Halving,
    Knowledge,
    Schedule,
    TrainingAttack,
)
from clients.attacks.perturbation import Direction
from clients.reporting import Claim
from clients.training import LocalTraining, State, StepHook
from fl_testbed.scenario.own_specs import OwnSpec, flaw_of_tensors
from fl_testbed.scenario.poisons import AnyPoisonSpec
from fl_testbed.scenario.spec import (
    BY_KIND,
    ClientCount,
    Contradiction,
    FunctionSpec,
    NoneSpec,
    Spec,
    inside,
)
from strategies.pipeline import asked_facts

SeenBy = Annotated[
    Literal["omniscient", "colluding"],
    Field(description="which updates they see: all honest ones of the round, or each other's"),
]
OF_THE_OMNISCIENT = ("include_own", "stretch", "values")
"""Keys without effect on colluding attackers, who estimate from their own updates alone."""


class AttackSpec(FunctionSpec):
    """An attack on the update, and the facts of the scenario that it needs."""

    needs_spread: ClassVar[bool] = True
    """Whether colluding attackers must be at least two, to estimate how honest updates differ."""

    @property
    def seen(self) -> Knowledge:
        """Which updates the attackers see."""
        return Knowledge(getattr(self, "knowledge", Knowledge.BLIND))

    @property
    def asked(self) -> frozenset[str]:
        """The facts that its attackers are told."""
        attack = self.build()
        return asked_facts(attack, FACTS, skip=1) if attack is not None else frozenset()

    @property
    def knows_defence(self) -> bool:
        """Whether attackers can compute what the server's rule would make of the round."""
        return "defence" in self.asked

    @property
    def needs_twin(self) -> bool:
        """Whether attackers train a second time, on clean data."""
        return "clean" in self.asked

    @property
    def samples_everybody(self) -> bool:
        """Whether the mean and spread that attackers estimate include their own updates."""
        return getattr(self, "include_own", False)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that the scenario gives."""
        given = self.model_dump(exclude={"kind", "knowledge", "include_own", "search"})
        if (search := getattr(self, "search", None)) is not None:
            given["search"] = search.build()
        return given

    def build(self) -> Attack | None:
        """Return the attack, its arguments bound."""
        return self.bind()


class NoAttackSpec(NoneSpec, AttackSpec):
    """Attackers send what they trained."""


class SignFlipSpec(AttackSpec):
    """Sign flip: send the attacker's own update negated, times a factor."""

    kind: Literal["sign_flip"]
    scale: PositiveFloat = 1.0
    function = staticmethod(attacks.sign_flip)


class GaussianSpec(AttackSpec):
    """Gaussian noise in place of an update, or on top of it."""

    kind: Literal["gaussian"]
    std: PositiveFloat = 1.0
    mean: float = 0.0
    convention: Literal["replace", "add"] = "replace"
    relative: bool = False  # std as a multiple of that of the attacker's own coordinates
    function = staticmethod(attacks.gaussian)


class ModelReplacementSpec(AttackSpec):
    """Model replacement: scale the attacker's own update up, by default by n / f."""

    kind: Literal["model_replacement"]
    factor: PositiveFloat | None = None
    function = staticmethod(attacks.model_replacement)


class AlieSpec(AttackSpec):
    """A little is enough: the mean of the updates seen, shifted by z standard deviations."""

    kind: Literal["alie"]
    knowledge: SeenBy = "omniscient"
    include_own: bool = False  # mean and spread over all clients, attackers too, as in FLANDERS
    z: float | Literal["quantile", "cdf"] = "quantile"  # a number, or how it follows from n and f
    spread: Literal["std", "root_std"] = "std"
    function = staticmethod(attacks.alie)


class InnerProductSpec(AttackSpec):
    """Inner-product manipulation: send minus ε times the mean of the updates seen."""

    kind: Literal["inner_product"]
    knowledge: SeenBy = "omniscient"
    scale: PositiveFloat
    function = staticmethod(attacks.inner_product)
    needs_spread = False


class HalvingSpec(Spec):
    """Search for the largest factor by halved steps, as other code does: its start and step."""

    start: PositiveFloat
    first_step: PositiveFloat
    otherwise: NonNegativeFloat = 0.0  # the factor if none fits

    def build(self) -> Halving:
        """Return the search."""
        return Halving(**self.model_dump())


class MinMaxSpec(AttackSpec):
    """Min-Max: at most as far from any honest update as the two farthest honest ones are apart."""

    kind: Literal["min_max"]
    knowledge: SeenBy = "omniscient"
    include_own: bool = False  # mean and spread over all clients, attackers too, as in FLANDERS
    direction: Direction = "std"
    search: HalvingSpec | None = None  # the exact factor by default
    function = staticmethod(attacks.min_max)


class MinSumSpec(AttackSpec):
    """Min-Sum: summed distance to the honest updates at most that of the farthest honest one."""

    kind: Literal["min_sum"]
    knowledge: SeenBy = "omniscient"
    direction: Direction = "std"
    bound: Literal["max", "min"] = "max"  # min: as in the authors' code
    search: HalvingSpec | None = None  # the exact factor by default
    function = staticmethod(attacks.min_sum)


class FangKrumSpec(AttackSpec):
    """Fang's attack on Krum: against the honest direction, as far as Krum still selects it."""

    kind: Literal["fang_krum"]
    knowledge: SeenBy = "omniscient"
    around: Literal["received", "first_reply"] = "received"  # first_reply: as FLANDERS does
    threshold: PositiveFloat = 1e-5
    function = staticmethod(attacks.fang_krum)

    def build(self) -> Attack | None:
        """Return the attack for full or partial knowledge."""
        if self.seen is Knowledge.COLLUDING:
            return partial(attacks.fang_krum_partial, threshold=self.threshold)
        return self.bind()


class FangTrimmedMeanSpec(AttackSpec):
    """Fang's attack on trimmed mean and median: just beyond the honest extremes."""

    kind: Literal["fang_trimmed_mean"]
    knowledge: SeenBy = "omniscient"
    stretch: Annotated[float, Field(gt=1)] = 2.0
    values: Literal["models", "updates"] = "models"
    function = staticmethod(attacks.fang_trimmed_mean)

    def build(self) -> Attack | None:
        """Return the attack for full or partial knowledge."""
        if self.seen is Knowledge.COLLUDING:
            return attacks.fang_trimmed_mean_partial
        return self.bind()


class MimicSpec(AttackSpec):
    """Mimic: all attackers send a copy of one honest client's update."""

    kind: Literal["mimic"]
    knowledge: Literal["omniscient"] = "omniscient"
    client: NonNegativeInt | None = None  # client to copy; by default who stands out most
    warm_up_rounds: PositiveInt = 1
    function = staticmethod(attacks.mimic)


class TailoredSpec(AttackSpec):
    """Tailored: the factor that moves the defence's result farthest, found by querying it."""

    kind: Literal["tailored"]
    knowledge: Literal["omniscient"] = "omniscient"
    direction: Direction = "std"
    n_evaluations: PositiveInt = 20
    function = staticmethod(attacks.tailored)


class MinorityMimicSpec(AttackSpec):
    """Minority-mimic: hide a poisoned update where the updates of honest minority clients lie."""

    kind: Literal["minority_mimic"]
    knowledge: SeenBy = "omniscient"
    closeness: PositiveFloat = 1.0  # distance to the minority, as a multiple of its own spread
    within: Literal["ball", "box"] = "ball"
    function = staticmethod(attacks.minority_mimic)
    needs_spread = False


class PoisonedFLSpec(AttackSpec):
    """PoisonedFL: push the model along the same random signs in every round."""

    kind: Literal["poisonedfl"]
    knowledge: Literal["colluding"] = "colluding"
    scale: PositiveFloat = 8.0
    window: PositiveInt = 50
    decay: Annotated[float, Field(gt=0, le=1)] = 0.7
    function = staticmethod(attacks.poisonedfl)
    needs_spread = False


class OwnAttackSpec(OwnSpec, AttackSpec):
    """Your own attack: file.py:name or package.module:name."""

    knowledge: Literal["omniscient", "colluding", "blind"] = "omniscient"
    facts = FACTS
    first = "the attackers' own updates"
    needs_spread = False

    @property
    def offered(self) -> frozenset[str]:
        """The facts that attackers with this knowledge are told."""
        return self.facts - UNTOLD if self.seen is Knowledge.BLIND else self.facts

    def _untold(self, fact: str) -> str:
        """Say which knowledge attackers need to be told a fact."""
        if fact not in self.facts:
            return ""
        return ", which blind attackers are not told: set knowledge to omniscient or colluding"

    @property
    def asked(self) -> frozenset[str]:
        """The facts that the function names, of those that its attackers can be told."""
        return frozenset(filter(self.names, self.offered))

    def flaw_of(self, result: Any, *args: Any, **named: Any) -> str:
        """Require one update for each attacker."""
        return flaw_of_tensors(result, Forged, {"updates": tuple(args[0].shape)})


AnyAttackSpec = Annotated[
    NoAttackSpec
    | SignFlipSpec
    | GaussianSpec
    | ModelReplacementSpec
    | AlieSpec
    | InnerProductSpec
    | MinMaxSpec
    | MinSumSpec
    | FangKrumSpec
    | FangTrimmedMeanSpec
    | MimicSpec
    | TailoredSpec
    | MinorityMimicSpec
    | PoisonedFLSpec
    | OwnAttackSpec,
    BY_KIND,
]


class NoTrainingAttackSpec(NoneSpec):
    """Attackers train as everybody does."""


class PgdSpec(FunctionSpec):
    """PGD: project the model back into a ball around the received one while training."""

    kind: Literal["pgd"]
    radius: PositiveFloat  # radius of the ball, in parameter units
    relative: bool = False  # radius as a multiple of the global model's last move
    every: PositiveInt | Literal["never"] = 1  # steps between projections; never: after the last
    function = attacks.ProjectedDescent

    def build(self) -> TrainingAttack | None:
        """Return the projection."""
        return self.bind(every=None if self.every == "never" else self.every)()


class NeurotoxinSpec(FunctionSpec):
    """Neurotoxin: leave alone the coordinates that honest clients change most."""

    kind: Literal["neurotoxin"]
    share: Annotated[float, Field(gt=0, lt=1)] = 0.05  # share of coordinates kept as received
    function = attacks.Neurotoxin

    def build(self) -> TrainingAttack | None:
        """Return the mask."""
        return self.bind()()


class OwnTrainingAttackSpec(OwnSpec):
    """Your own code that attackers run after each step: file.py:name or package.module:name."""

    facts = frozenset({"received", "previous", "step", "is_last", "scratch"})
    first = "the parameters after a step"

    def build(self) -> TrainingAttack | None:
        """Return this spec: it has the method ``hook`` itself."""
        return self

    @property
    def needs_previous(self) -> bool:
        """Whether it asks for the model that the attacker received when it last took part."""
        return self.names("previous")

    def hook(
        self, received: State, previous: State | None, clean_gradient: Callable[[], State]
    ) -> StepHook:
        """Return the function to call after each step of one client's training in one round."""
        models = {"received": received, "previous": previous}
        told: dict[str, Any] = {  # copies: other clients train from the same tensors
            name: model and {key: value.clone() for key, value in model.items()}
            for name, model in models.items()
        }
        told["scratch"] = {}

        def act(parameters: State, step: int, is_last: bool) -> None:
            # Read-only mapping: tensors must be changed in place, a replaced one would be ignored.
            self.called(MappingProxyType(parameters), step=step, is_last=is_last, **told)

        return act

    def flaw_of(self, result: Any, *args: Any, **named: Any) -> str:
        """Require that nothing is returned: it would be ignored."""
        if result is None:
            return ""
        text = "must change the parameters in place and return nothing"
        return f"{text}, returned {type(result).__name__}"


AnyTrainingAttackSpec = Annotated[
    NoTrainingAttackSpec | PgdSpec | NeurotoxinSpec | OwnTrainingAttackSpec, BY_KIND
]


class AttackerTrainingSpec(Spec):
    """How attackers train where they differ from honest clients."""

    optimizer: Literal["sgd", "adam"] | None = None
    lr: PositiveFloat | None = None  # the same in all rounds: training.lr_decay leaves it alone
    batch_size: PositiveInt | None = None
    local_epochs: PositiveInt | None = None
    local_steps: PositiveInt | None = None  # in place of local_epochs
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None

    def build(self, honest: LocalTraining) -> LocalTraining:
        """Return the attackers' settings."""
        own = self.model_dump(exclude_none=True)
        if self.local_epochs is not None:  # these replace the honest clients' local_steps
            own.setdefault("local_steps", None)
        return replace(honest, **own)


class ScheduleSpec(Spec):
    """In which rounds attackers attack: first, first + every, … up to last."""

    first: PositiveInt | Literal["never"] = 1  # first attack; never: success is measured too
    last: PositiveInt | None = None  # last attack; the run's last round by default
    every: PositiveInt = 1  # 1: in every round, 2: in every second one

    def build(self) -> Schedule:
        """Return the schedule."""
        if self.first == "never":
            return Schedule(last=0)
        return Schedule(self.first, self.last, self.every)

    def contradictions(self, rounds: int) -> Iterator[Contradiction]:
        """Yield a fault if attackers would never attack although ``first`` is not ``never``."""
        last = rounds if self.last is None else min(self.last, rounds)
        if self.first != "never" and self.first > last:
            yield "first", f"needs at most {last}, got {self.first}: attackers would never attack"


class AttackersSpec(Spec):
    """Attackers of one kind."""

    count: ClientCount | None = None  # of clients.poisoned; none: all that other kinds leave
    poison: AnyPoisonSpec | None = None  # the scenario's by default
    training: AttackerTrainingSpec = AttackerTrainingSpec()
    training_attack: AnyTrainingAttackSpec = NoTrainingAttackSpec()  # what they do while they train
    attack: AnyAttackSpec = NoAttackSpec()  # what they send
    reported_loss: Claim = "honest"  # low: a tenth of their loss; high: ten times it
    schedule: ScheduleSpec = ScheduleSpec()


class AttackerKind(AttackersSpec):
    """Attackers of one kind as a run has them: with their client ids and their poison's name."""

    # Always given here, although a scenario's list of attackers may leave both out.
    count: NonNegativeInt  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    poison: AnyPoisonSpec  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    poison_name: str  # what results call it; empty for none
    first: NonNegativeInt  # the lowest of their client ids

    @property
    def clients(self) -> range:
        """Their ids."""
        return range(self.first, self.first + self.count)

    @property
    def ever_attacks(self) -> bool:
        """Whether they do anything in any round that an honest client would not."""
        armed = {self.poison.kind, self.training_attack.kind, self.attack.kind} != {"none"}
        lies = self.reported_loss != "honest" or self.training != AttackerTrainingSpec()
        return self.schedule.first != "never" and (armed or lies)

    def contradictions(self, n_clients: int, n_honest: int, rounds: int) -> Iterator[Contradiction]:
        """Yield keys that contradict each other, as (key, text), for a scenario of that size."""
        attack = self.attack
        if self.count == 1 and attack.seen is Knowledge.COLLUDING and attack.needs_spread:
            text = (
                f"{attack.kind} needs at least 2 colluding attackers, who learn from each other "
                "how updates differ, got 1: raise their count or set omniscient"
            )
            yield "attack.knowledge", text
        if attack.needs_twin and self.poison.kind == "none" and self.count:
            yield "attack", f"{attack.kind} hides a poison, and there is none: set poison"
        if isinstance(attack, AlieSpec) and attack.z == "quantile" and 2 * self.count >= n_clients:
            text = (
                f"is derived where less than half attack, got {self.count} of {n_clients} clients: "
                "give a number, or lower the count"
            )
            yield "attack.z", text
        if isinstance(attack, FangKrumSpec) and (
            attack.around == "first_reply" and attack.seen is Knowledge.COLLUDING
        ):
            text = "first_reply uses an honest client's model: set attack.knowledge to omniscient"
            yield "attack.around", text
        if attack.seen is Knowledge.COLLUDING:
            text = "is only for omniscient attackers: leave it out"
            for key, field in type(attack).model_fields.items():
                if key in OF_THE_OMNISCIENT and getattr(attack, key) != field.default:
                    yield f"attack.{key}", text
        if isinstance(attack, MimicSpec) and (attack.client or 0) >= n_honest and self.count:
            known = f"from 0 to {n_honest - 1}, got {attack.client}" if n_honest else "got none"
            yield "attack.client", f"needs an honest client, {known}"
        yield from inside("schedule", self.schedule.contradictions(rounds))
