"""Client side of a scenario: data, model, training, poison."""

from functools import partial
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from clients.poisons import Trigger, added_pattern, blended_pattern, dirty_label_backdoor, patch
from clients.shard import Shard
from clients.training import LocalTraining
from fl_testbed.data import Dataset, Population
from fl_testbed.data.federation import ImageTransform, Poison
from fl_testbed.data.minority import inverted
from fl_testbed.models import mlp
from fl_testbed.scenario.spec import Fraction, Spec, share_of


class InvertedSpec(Spec):
    """Minority clients hold images with inverted intensities."""

    kind: Literal["inverted"] = "inverted"

    def build(self) -> ImageTransform:
        """Return the transform."""
        return inverted

    @property
    def group_names(self) -> tuple[str, str]:
        """Names of the majority's and the minority's group."""
        return ("plain", "inverted")


class DatasetSpec(Spec):
    """What every dataset answers."""

    split_by_seed: ClassVar[bool] = False
    """Whether the seed decides which examples are for testing."""
    minority: InvertedSpec = InvertedSpec()


class DigitsSpec(DatasetSpec):
    """scikit-learn's bundled digits, 8 × 8; needs no files."""

    kind: Literal["digits"]
    split_by_seed: ClassVar[bool] = True


class FashionMnistSpec(DatasetSpec):
    """Fashion-MNIST, 28 × 28 clothing, from the data folder."""

    kind: Literal["fashion_mnist"]


AnyDatasetSpec = Annotated[DigitsSpec | FashionMnistSpec, Field(discriminator="kind")]


class MlpSpec(Spec):
    """ReLU layers of the given widths; [] is logistic regression."""

    kind: Literal["mlp"]
    hidden: list[PositiveInt]

    def build(self, dataset: Dataset) -> nn.Module:
        """Return the model for a dataset, initialised from torch's global generator."""
        return mlp(dataset.input_shape, dataset.n_classes, self.hidden)


class ClientsSpec(Spec):
    """How many clients of each role, and how many examples each holds."""

    honest_majority: NonNegativeInt
    honest_minority: NonNegativeInt
    poisoned: NonNegativeInt
    examples_each: PositiveInt
    overlap: bool = False  # whether two clients may hold the same example

    @property
    def population(self) -> Population:
        """The clients by role."""
        return Population(self.honest_majority, self.honest_minority, self.poisoned)


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
    minority_fraction: Fraction = 0.0  # share of them in minority style


class EvaluationSpec(Spec):
    """When and on how much the global model is tested."""

    every: PositiveInt = 1
    max_examples: PositiveInt | None = None  # of the test set; all by default
