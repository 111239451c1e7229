"""Scenarios on pooled data: one training set, some of it poisoned, and a method in stages."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from clients.poisons import check_is_matched, confidence_matched_backdoor
from clients.shard import Shard
from clients.training import LocalTraining
from fl_testbed.scenario.datasets import AnyDatasetSpec
from fl_testbed.scenario.initial_model import Init
from fl_testbed.scenario.models import AnyModelSpec
from fl_testbed.scenario.poisons import (
    CleanLabelBackdoorSpec,
    DirtyLabelBackdoorSpec,
    GradientMatchingSpec,
    LabelFlipSpec,
    NoPoisonSpec,
    OwnPoisonSpec,
    Plan,
    PoisonSpec,
    Scene,
    SubpopulationSpec,
    stamped,
)
from fl_testbed.scenario.scenario import EngineSpec, Name, Variant
from fl_testbed.scenario.spec import (
    BY_KIND,
    Contradiction,
    Fraction,
    Spec,
    Threads,
    WholeScenario,
    inside,
)
from fl_testbed.scenario.stages import AnyStageSpec
from fl_testbed.scenario.triggers import AnyTriggerSpec


@dataclass(frozen=True)
class PooledScene(Scene):
    """What an attacker on pooled data can plan with: also the clean training set."""

    everything: Shard
    is_minority: Tensor
    """Which examples of the clean training set are the minority's, bool, shape (n,)."""


class MimicBackdoorSpec(PoisonSpec):
    """A dirty-label backdoor on sources that look as hard to learn as the minority does."""

    kind: Literal["mimic_backdoor"]
    trigger: AnyTriggerSpec  # what is stamped
    target: NonNegativeInt  # the class that stamped inputs are to be taken for
    fraction: Fraction = 1.0  # of what attackers hold
    minority: Literal["same_label", "all"] = "same_label"  # whose confidences are matched
    surrogate_epochs: PositiveInt = 3  # of the model whose confidences are matched
    function = staticmethod(confidence_matched_backdoor)

    def build(self, scene: Scene) -> Plan:
        """Return the poison."""
        assert isinstance(scene, PooledScene)
        trigger = self.trigger.build(scene.dataset, scene.groups)
        clean, reference = scene.everything, scene.is_minority
        if self.minority == "same_label":
            reference = reference & (clean.labels == self.target)
        if self.fraction > 0:
            check_is_matched(int(reference.sum()))
        model = cache(lambda: scene.surrogate(clean, self.surrogate_epochs))

        def poison(shard: Shard) -> Shard:
            minority = clean.inputs[reference], clean.labels[reference]
            return confidence_matched_backdoor(
                shard, trigger, self.target, self.fraction, model(), *minority
            )

        return Plan(poison, partial(stamped, trigger=trigger, source=None, target=self.target))

    def wanted(self, labels: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the examples of other classes."""
        return labels != self.target, self.fraction


AnyPooledPoisonSpec = Annotated[
    NoPoisonSpec
    | DirtyLabelBackdoorSpec
    | MimicBackdoorSpec
    | CleanLabelBackdoorSpec
    | LabelFlipSpec
    | SubpopulationSpec
    | GradientMatchingSpec
    | OwnPoisonSpec,
    BY_KIND,
]


class PooledAttackerSpec(Spec):
    """Which examples the attacker holds; ``poison.fraction`` is of these."""

    groups: list[str] | None = None  # all majority groups by default; never minority groups


class PooledTrainingSpec(Spec):
    """How each model of a method is trained."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: PositiveFloat  # learning rate of the optimizer
    batch_size: PositiveInt  # examples in a step
    epochs: PositiveInt  # passes over the training set
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0  # momentum of sgd
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # weight decay of the optimizer

    def build(self, epochs: int | None) -> LocalTraining:
        """Return the settings of one training, for another number of epochs if one is given."""
        settings = self.model_dump(exclude={"epochs"})
        return LocalTraining(**settings, local_epochs=epochs or self.epochs)


class PooledEvaluationSpec(Spec):
    """What models are tested on, and what is written down."""

    max_examples: PositiveInt | None = None  # use only the first test examples; all by default
    clean_twin: bool = True  # also train without poison: what does the trigger do by itself?
    scores: bool = True  # write every example's confidence after every epoch


class CentralizedScenario(WholeScenario):
    """One run on pooled data."""

    kind: Literal["centralized"]
    name: Name  # the folder of its runs
    variant: Variant = "default"  # the name of this variant
    seed: NonNegativeInt = 0  # decides all random numbers
    torch_threads: Threads = 1  # CPU threads of torch; the last bits of results depend on it
    dataset: AnyDatasetSpec  # needs examples with groups, or a style
    n_examples: PositiveInt | None = None  # for training, drawn by the seed; all by default
    minority_fraction: Fraction = 0.05  # of training examples, where the minority is a style
    model: AnyModelSpec  # what is trained
    init: Init = None  # a trained model to start from: path of its model.safetensors
    training: PooledTrainingSpec
    poison: AnyPooledPoisonSpec = NoPoisonSpec()  # what the attacker does to its share
    attacker: PooledAttackerSpec = PooledAttackerSpec()
    stages: list[AnyStageSpec] = Field(default_factory=list)  # none: plain ERM
    evaluation: PooledEvaluationSpec = PooledEvaluationSpec()
    engine: EngineSpec = EngineSpec()
    rounds: ClassVar[int] = 1  # a run is one piece of work
    can_resume: ClassVar[bool] = True  # an unfinished run leaves nothing, and starts anew
    may_be_longer: ClassVar[bool] = False

    @property
    def is_oracle(self) -> bool:
        """Whether a stage is told the truth about examples: marked in every table."""
        return any(stage.is_oracle for stage in self.stages)

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield keys that contradict each other, as (key, text)."""
        yield from inside("poison", self.poison.equal_classes())
        if self.dataset.n_classes is not None:
            yield from inside("poison", self.poison.unknown_classes(self.dataset.n_classes))
        if self.engine.kind == "flower":
            text = "flower is only for federations: use inline, or ray for runs side by side"
            yield "engine.kind", text
