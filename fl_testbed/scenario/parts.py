"""Client side of a scenario: sampling, training, poison, and what models are judged by."""

from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from clients.poisons import (
    Trigger,
    added_pattern,
    blended_pattern,
    dirty_label_backdoor,
    patch,
    raised_pixels,
    set_features,
)
from clients.shard import Shard
from clients.training import LocalTraining
from fl_testbed.data import DataError, Dataset
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

    def build(self, dataset: Dataset) -> Trigger:
        """Return the trigger."""
        return partial(patch, **stamp_settings(self, dataset))


class BlendedSpec(Spec):
    """A random 0/1 pattern blended over the whole image."""

    kind: Literal["blended"]
    strength: Fraction
    pattern_seed: NonNegativeInt = 0

    def build(self, dataset: Dataset) -> Trigger:
        """Return the trigger."""
        return partial(blended_pattern, **stamp_settings(self, dataset))


class AddedSpec(Spec):
    """A random ±1 pattern added to the whole image."""

    kind: Literal["added"]
    strength: Fraction
    pattern_seed: NonNegativeInt = 0

    def build(self, dataset: Dataset) -> Trigger:
        """Return the trigger."""
        return partial(added_pattern, **stamp_settings(self, dataset))


class RaisedSpec(Spec):
    """A random share of the pixels made brighter."""

    kind: Literal["raised"]
    share: Fraction  # of the pixels
    strength: Fraction
    pattern_seed: NonNegativeInt = 0

    def build(self, dataset: Dataset) -> Trigger:
        """Return the trigger."""
        return partial(raised_pixels, **stamp_settings(self, dataset))


class FeaturesSpec(Spec):
    """Columns of a table set to a value, in the table's own units."""

    kind: Literal["features"]
    set: Annotated[dict[str, float | str], Field(min_length=1)]

    def build(self, dataset: Dataset) -> Trigger:
        """Return the trigger.

        Raises:
            DataError: If the dataset has no such column or value.
        """
        inputs: dict[int, float] = {}
        for column, value in self.set.items():
            if column not in dataset.features:
                known = ", ".join(dataset.features) or "none: it is no table"
                raise DataError(f"poison.trigger.set: {dataset.name} has columns {known}")
            try:
                inputs |= dataset.features[column].inputs_of(value)
            except ValueError as fault:
                raise DataError(f"poison.trigger.set.{column}: {fault}") from None
        return partial(set_features, values=inputs)


def stamp_settings(spec: Spec, dataset: Dataset) -> dict[str, Any]:
    """Return a spec's keys as arguments of what stamps images.

    Raises:
        DataError: If the dataset holds something else.
    """
    settings = spec.model_dump()
    if not dataset.holds_images:
        raise DataError(
            f"poison.trigger.kind {settings['kind']} needs images, {dataset.name} holds features: "
            "take features"
        )
    return {key: value for key, value in settings.items() if key != "kind"}


TriggerSpec = Annotated[
    PatchSpec | BlendedSpec | AddedSpec | RaisedSpec | FeaturesSpec, Field(discriminator="kind")
]


class DirtyLabelBackdoorSpec(Spec):
    """Stamp a trigger on a share of an attacker's images and label them as the target."""

    kind: Literal["dirty_label_backdoor"]
    trigger: TriggerSpec
    source: NonNegativeInt | None = None  # the only class poisoned; any but the target by default
    target: NonNegativeInt
    fraction: Fraction = 1.0  # of an attacker's shard

    def build(self, dataset: Dataset) -> Poison:
        """Return what turns an attacker's clean shard into a poisoned one."""
        return _Backdoor(self, self.trigger.build(dataset))


class _Backdoor:
    """A poison with its parameters bound."""

    def __init__(self, spec: DirtyLabelBackdoorSpec, trigger: Trigger) -> None:
        self.spec, self.trigger = spec, trigger

    def __call__(self, shard: Shard, attacker: int, rng: np.random.Generator) -> Shard:
        spec = self.spec
        return dirty_label_backdoor(
            shard, self.trigger, spec.target, spec.fraction, rng, spec.source
        )


class NoPoisonSpec(Spec):
    """Attackers train on clean data."""

    kind: Literal["none"] = "none"

    def build(self, dataset: Dataset) -> Poison | None:
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
