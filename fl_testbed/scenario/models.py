"""Models that a scenario can name."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from fl_testbed.data import DataError, Dataset
from fl_testbed.models import cnn, lenet, mlp, resnet18, resnet50
from fl_testbed.scenario.own_specs import OwnSpec, flaw_of_tensors
from fl_testbed.scenario.spec import BY_KIND, FunctionSpec
from fl_testbed.scenario.users_code import OwnCodeError

SMALLEST = 8  # pixels of an image's side: of fewer, convolutions and pooling leave nothing
Width = Annotated[int, Field(gt=0, le=1_000_000)]
"""Units or filters of a layer."""
StageWidth = Annotated[int, Field(ge=2, le=1_000_000)]
"""Filters of a ResNet's first stage. With 1, a GroupNorm would normalise single numbers."""


class ModelSpec(FunctionSpec):
    """What all models have in common."""

    def build(self, dataset: Dataset) -> nn.Module:
        """Return the model for a dataset, initialised from torch's global generator.

        Raises:
            DataError: If it cannot take the dataset's inputs.
        """
        return self.bind()(dataset.input_shape, dataset.n_classes)


class LogisticRegressionSpec(ModelSpec):
    """One linear layer."""

    kind: Literal["logistic_regression"]
    function = staticmethod(mlp)

    def arguments(self) -> dict[str, Any]:
        """Return an empty list of hidden layers."""
        return {"hidden": []}


class MlpSpec(ModelSpec):
    """ReLU layers of the given widths, for images or features; [] is logistic regression."""

    kind: Literal["mlp"]
    hidden: list[Width]  # units of each layer
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of hidden units, while training
    normalise: bool = True  # images to [-1, 1]; false leaves them in [0, 1]
    function = staticmethod(mlp)


class ImageModelSpec(ModelSpec):
    """A model of images."""

    def build(self, dataset: Dataset) -> nn.Module:
        """Return the model."""
        who, shape = f"model.kind {self.kind}", dataset.input_shape
        dataset.need_images(who, "mlp or logistic_regression")
        if min(shape[1:]) < SMALLEST:
            raise DataError(
                f"{who} needs images of at least {SMALLEST} × {SMALLEST} pixels, {dataset.name} "
                f"has {shape[1]} × {shape[2]}"
            )
        try:
            return super().build(dataset)
        except ValueError as fault:
            raise DataError(str(fault)) from None


class LeNetSpec(ImageModelSpec):
    """LeNet-5 with ReLU and max pooling."""

    kind: Literal["lenet"]
    function = staticmethod(lenet)


class CnnSpec(ImageModelSpec):
    """3 × 3 convolutions with pooling, and one hidden layer."""

    kind: Literal["cnn"]
    filters: Annotated[list[Width], Field(min_length=1)] = Field(default_factory=lambda: [32, 64])
    hidden: Width = 128  # units of the hidden layer
    pooling: Literal["each", "last"] = "each"  # after each convolution, or the last
    function = staticmethod(cnn)


class ResNet18Spec(ImageModelSpec):
    """ResNet-18 for small images, with GroupNorm."""

    kind: Literal["resnet18"]
    width: StageWidth = 64  # filters of the first stage
    function = staticmethod(resnet18)


class ResNet50Spec(ImageModelSpec):
    """ResNet-50 for small images, with GroupNorm."""

    kind: Literal["resnet50"]
    width: StageWidth = 64  # filters of the first stage
    function = staticmethod(resnet50)


SENT = (torch.float16, torch.float32, torch.float64)
"""What Flower's messages can hold of a model: numpy has no bfloat16, and updates are real."""


class OwnModelSpec(OwnSpec, ModelSpec):
    """Your own model: file.py:name or package.module:name."""

    facts = frozenset({"input_shape", "n_classes"})

    def build(self, dataset: Dataset) -> nn.Module:
        """Return the model."""
        shape, n_classes = dataset.input_shape, dataset.n_classes
        model = self.called(input_shape=shape, n_classes=n_classes)
        try:
            with torch.no_grad():
                logits = model.eval()(torch.zeros(2, *shape))
                before = torch.get_rng_state()  # only now have lazy layers drawn their parameters
                model(torch.zeros(2, *shape))
        except Exception as fault:  # a user's code may raise anything
            raise OwnCodeError(self.code.blame(fault)) from fault
        given = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if given != (2, n_classes):
            text = f"must turn shape {(2, *shape)} into {(2, n_classes)}, one logit per class"
            raise self.code.refused(f"{text}, returned {given}")
        if not torch.equal(torch.get_rng_state(), before):
            text = "draws random numbers in tests too: check self.training in forward"
            raise self.code.refused(text)
        for name, values in model.state_dict().items():
            is_fraction = values.is_floating_point() or values.is_complex()
            if is_fraction and values.dtype not in SENT:
                text = f"has {name} in {str(values.dtype).removeprefix('torch.')}"
                raise self.code.refused(f"{text}: keep it in float32, and cast in forward")
        return model.train()

    def flaw_of(self, result: Any, *args: Any, **named: Any) -> str:
        """Require a module."""
        return flaw_of_tensors(result, nn.Module, {})


AnyModelSpec = Annotated[
    LogisticRegressionSpec
    | MlpSpec
    | LeNetSpec
    | CnnSpec
    | ResNet18Spec
    | ResNet50Spec
    | OwnModelSpec,
    BY_KIND,
]
