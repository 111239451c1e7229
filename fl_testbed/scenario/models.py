"""Models that a scenario can name."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import nn

from fl_testbed.data import DataError, Dataset
from fl_testbed.models import cnn, lenet, mlp, resnet18
from fl_testbed.scenario.spec import Spec


class ModelSpec(Spec):
    """What every model answers."""

    def build(self, dataset: Dataset) -> nn.Module:
        """Return the model for a dataset, initialised from torch's global generator.

        Raises:
            DataError: If it cannot take the dataset's inputs.
        """
        raise TypeError(f"{type(self).__name__} has no model")


class LogisticRegressionSpec(ModelSpec):
    """One linear layer."""

    kind: Literal["logistic_regression"]

    def build(self, dataset: Dataset) -> nn.Module:
        """Return the model."""
        return mlp(dataset.input_shape, dataset.n_classes, [])


class MlpSpec(ModelSpec):
    """ReLU layers of the given widths, for images or features; [] is logistic regression."""

    kind: Literal["mlp"]
    hidden: list[PositiveInt]

    def build(self, dataset: Dataset) -> nn.Module:
        """Return the model."""
        return mlp(dataset.input_shape, dataset.n_classes, self.hidden)


class LeNetSpec(ModelSpec):
    """LeNet-5 with ReLU and max pooling."""

    kind: Literal["lenet"]

    def build(self, dataset: Dataset) -> nn.Module:
        """Return the model."""
        return lenet(image_shape(dataset, self.kind), dataset.n_classes)


class CnnSpec(ModelSpec):
    """3 × 3 convolutions with pooling, and one hidden layer."""

    kind: Literal["cnn"]
    filters: Annotated[list[PositiveInt], Field(min_length=1)] = Field(
        default_factory=lambda: [32, 64]
    )
    hidden: PositiveInt = 128
    pooling: Literal["each", "last"] = "each"  # after each convolution, or the last

    def build(self, dataset: Dataset) -> nn.Module:
        """Return the model."""
        shape = image_shape(dataset, self.kind)
        try:
            return cnn(shape, dataset.n_classes, self.filters, self.hidden, self.pooling)
        except ValueError as fault:
            raise DataError(str(fault)) from None


class ResNet18Spec(ModelSpec):
    """ResNet-18 for small images, with GroupNorm."""

    kind: Literal["resnet18"]
    width: PositiveInt = 64  # filters of the first stage

    def build(self, dataset: Dataset) -> nn.Module:
        """Return the model."""
        return resnet18(image_shape(dataset, self.kind), dataset.n_classes, self.width)


AnyModelSpec = Annotated[
    LogisticRegressionSpec | MlpSpec | LeNetSpec | CnnSpec | ResNet18Spec,
    Field(discriminator="kind"),
]

SMALLEST = 8  # pixels: below, convolutions and poolings leave nothing


def image_shape(dataset: Dataset, model: str) -> tuple[int, ...]:
    """Return the shape of a dataset's images.

    Raises:
        DataError: If it holds something else, or images that are too small.
    """
    shape = dataset.input_shape
    if not dataset.holds_images:
        raise DataError(
            f"model.kind {model} needs images, {dataset.name} holds {shape[0]} features: "
            "take mlp or logistic_regression"
        )
    if min(shape[1:]) < SMALLEST:
        raise DataError(
            f"model.kind {model} needs images of at least {SMALLEST} × {SMALLEST} pixels, "
            f"{dataset.name} has {shape[1]} × {shape[2]}"
        )
    return shape
