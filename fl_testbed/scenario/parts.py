"""Client side of a scenario: sampling, training, poison, and what models are judged by."""

from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from clients.poisons import Trigger, added_pattern, blended_pattern, dirty_label_backdoor, patch
from clients.shard import Shard
from clients.training import LocalTraining
from fl_testbed.data.federation import Poison
from fl_testbed.scenario.spec import Fraction, Spec, share_of


class SamplingSpec(Spec):
    """Which clients take part in a round."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0

    def count(self, n_clients: int) -> int:
        """Return the size of a round's sample: at least one client."""
        return max(1, share_of(self.fraction, n_clients))


class TrainingSpec(Spec):
    """How clients (and the server, on its own data) train."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: PositiveFloat
    batch_size: PositiveInt
    local_epochs: PositiveInt = 1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    cohort: PositiveInt = 1  # clients trained at once; > 1 is faster and changes the last bits

    def build(self) -> LocalTraining:
        """Return the settings in the clients' terms."""
        return LocalTraining(**self.model_dump(exclude={"cohort"}))


class PatchSpec(Spec):
    """A square of one value near a corner."""

    kind: Literal["patch"]
    size: PositiveInt
    value: Fraction = 1.0
    corner: Literal["top_left", "top_right", "bottom_left", "bottom_right"] = "bottom_right"
    margin: NonNegativeInt = 0

    def build(self) -> Trigger:
        """Return the trigger."""
        return partial(patch, **self.model_dump(exclude={"kind"}))


class BlendedSpec(Spec):
    """A random 0/1 pattern blended over the whole image."""

    kind: Literal["blended"]
    strength: Fraction
    pattern_seed: NonNegativeInt = 0

    def build(self) -> Trigger:
        """Return the trigger."""
        return partial(blended_pattern, **self.model_dump(exclude={"kind"}))


class AddedSpec(Spec):
    """A random ±1 pattern added to the whole image."""

    kind: Literal["added"]
    strength: Fraction
    pattern_seed: NonNegativeInt = 0

    def build(self) -> Trigger:
        """Return the trigger."""
        return partial(added_pattern, **self.model_dump(exclude={"kind"}))


TriggerSpec = Annotated[PatchSpec | BlendedSpec | AddedSpec, Field(discriminator="kind")]


class DirtyLabelBackdoorSpec(Spec):
    """Stamp a trigger on a share of an attacker's images and label them as the target."""

    kind: Literal["dirty_label_backdoor"]
    trigger: TriggerSpec
    source: NonNegativeInt | None = None  # the only class poisoned; any but the target by default
    target: NonNegativeInt
    fraction: Fraction = 1.0  # of an attacker's shard

    def build(self) -> Poison:
        """Return what turns an attacker's clean shard into a poisoned one."""
        return _Backdoor(self)


class _Backdoor:
    """A picklable poison: workers build it from the scenario."""

    def __init__(self, spec: DirtyLabelBackdoorSpec) -> None:
        self.spec = spec

    def __call__(self, shard: Shard, attacker: int, rng: np.random.Generator) -> Shard:
        spec = self.spec
        return dirty_label_backdoor(
            shard, spec.trigger.build(), spec.target, spec.fraction, rng, spec.source
        )


class NoPoisonSpec(Spec):
    """Attackers train on clean data."""

    kind: Literal["none"] = "none"

    def build(self) -> Poison | None:
        """Return None."""
        return None


PoisonSpec = Annotated[NoPoisonSpec | DirtyLabelBackdoorSpec, Field(discriminator="kind")]


class ServerDataSpec(Spec):
    """Training examples that the server keeps for itself, for rules that need some."""

    n_examples: NonNegativeInt = 0
    minority_fraction: Fraction = 0.0  # share of them of the minority


class EvaluationSpec(Spec):
    """When and on how much the global model is tested."""

    every: PositiveInt = 1
    max_examples: PositiveInt | None = None  # of the test set; all by default
    split: Literal["test", "validation"] = "test"  # validation: for choosing settings
    n_validation: NonNegativeInt = 0  # training examples that nobody trains on
