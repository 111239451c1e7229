"""What a backdoor stamps on an example."""

from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt

from clients import poisons
from clients.poisons import Corner, Trigger
from fl_testbed.data import DataError, Dataset, Groups
from fl_testbed.data.groups import StyleGroups
from fl_testbed.data.styles import Style
from fl_testbed.scenario.own_specs import OwnSpec
from fl_testbed.scenario.spec import BY_KIND, Fraction, FunctionSpec
from strategies.shapes import Tensor

Extent = PositiveInt | Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]
"""Pixels of a square's side, or height and width of a rectangle."""
Place = Annotated[list[NonNegativeInt], Field(min_length=2, max_length=2)]
"""Row and column of a rectangle's upper left pixel."""


class TriggerSpec(FunctionSpec):
    """A trigger; most are stamped on images."""

    def build(self, dataset: Dataset, groups: Groups) -> Trigger:
        """Return the trigger.

        Raises:
            DataError: If the dataset holds something other than images.
        """
        self.need_images(dataset)
        return self.bind()

    def need_images(self, dataset: Dataset) -> None:
        """Raise DataError if the dataset holds something other than images."""
        dataset.need_images(f"poison.trigger.kind {self.kind}", "features")

    def arguments(self) -> dict[str, Any]:
        """Return the stamp's arguments, pairs of numbers as tuples."""
        given = super().arguments()
        pairs = {
            key: tuple(given[key]) for key in ("size", "at") if isinstance(given.get(key), list)
        }
        return given | pairs


class PatchSpec(TriggerSpec):
    """A rectangle of one value (or one value per channel) near a corner, or anywhere."""

    kind: Literal["patch"]
    size: Extent
    value: Fraction | list[Fraction] = 1.0
    corner: Corner = "bottom_right"
    margin: NonNegativeInt = 0
    at: Place | None = None  # in place of corner and margin
    function = staticmethod(poisons.patch)


class ChecksSpec(TriggerSpec):
    """Turner et al.'s 3 × 3 black and white pixels in corners."""

    kind: Literal["checks"]
    corners: Annotated[list[Corner], Field(min_length=1)] = ["bottom_right"]  # noqa: RUF012 (pydantic copies it)
    amplitude: Fraction | None = None  # added or subtracted, in place of black and white
    function = staticmethod(poisons.checks)


class StripsSpec(TriggerSpec):
    """The four strips of the distributed backdoor, two above two."""

    kind: Literal["strips"]
    length: PositiveInt = 4
    gap: NonNegativeInt = 2
    value: Fraction = 1.0
    top: NonNegativeInt = 0
    left: NonNegativeInt = 0
    function = staticmethod(poisons.strips)


class BlendedSpec(TriggerSpec):
    """A random 0/1 pattern blended over the whole image."""

    kind: Literal["blended"]
    strength: Fraction  # of the pattern, for pixels in [0, 1]
    pattern_seed: NonNegativeInt = 0  # draws the pattern
    function = staticmethod(poisons.blended_pattern)


class AddedSpec(TriggerSpec):
    """A random ±1 pattern added to the whole image."""

    kind: Literal["added"]
    strength: Fraction  # of the pattern, for pixels in [0, 1]
    pattern_seed: NonNegativeInt = 0  # draws the pattern
    function = staticmethod(poisons.added_pattern)


class RaisedSpec(TriggerSpec):
    """A random share of the pixels made brighter."""

    kind: Literal["raised"]
    share: Fraction  # of the pixels
    strength: Fraction  # added to these pixels
    pattern_seed: NonNegativeInt = 0  # draws which pixels
    function = staticmethod(poisons.raised_pixels)


class MinorityLookSpec(TriggerSpec):
    """The minority's own feature: what sets its images apart, all over or in a rectangle."""

    kind: Literal["minority_look"]
    strength: Fraction = 1.0
    size: Extent | None = None  # the whole image by default
    corner: Corner = "bottom_right"
    margin: NonNegativeInt = 0
    at: Place | None = None  # in place of corner and margin
    function = staticmethod(poisons.minority_look)

    def build(self, dataset: Dataset, groups: Groups) -> Trigger:
        """Return the trigger for a constructed minority."""
        look = as_minority(groups)
        self.need_images(dataset)
        return self.bind(as_minority=look)


class FeaturesSpec(TriggerSpec):
    """Columns of a table set to a value, in the table's own units."""

    kind: Literal["features"]
    set: Annotated[dict[str, float | str], Field(min_length=1)]  # value by column
    function = staticmethod(poisons.set_features)

    def build(self, dataset: Dataset, groups: Groups) -> Trigger:
        """Return the trigger.

        Raises:
            DataError: If the dataset has no such column or value.
        """
        inputs: dict[int, float] = {}
        for column, value in self.set.items():
            if column not in dataset.features:
                known = ", ".join(dataset.features) or "none, as it is not a table"
                text = f"unknown column {column!r}; columns of {dataset.name}: {known}"
                raise DataError(f"poison.trigger.set: {text}")
            try:
                inputs |= dataset.features[column].inputs_of(value)
            except ValueError as fault:
                raise DataError(f"poison.trigger.set.{column}: {fault}") from None
        return partial(poisons.set_features, values=inputs)


class OwnTriggerSpec(OwnSpec, TriggerSpec):
    """Your own trigger: file.py:name or package.module:name."""

    first = "the inputs to stamp"

    def build(self, dataset: Dataset, groups: Groups) -> Trigger:
        """Return the function with its arguments bound."""
        return partial(_on_a_copy, self.bind())

    def flaw_of(self, result: Any, *args: Any, **named: Any) -> str:
        """Require inputs of the shape that came in; images must lie in [0, 1]."""
        shape = tuple(args[0].shape)
        given = tuple(getattr(result, "shape", ()))
        if given != shape:
            return f"must return inputs of shape {shape}, returned {given}"
        low, high = (result.min().item(), result.max().item()) if result.numel() else (0, 1)
        is_image = len(shape) == 4
        if is_image and not -1e-6 <= low <= high <= 1 + 1e-6:
            return f"must return images in [0, 1], returned {low:.3g} to {high:.3g}"
        return ""


def _on_a_copy(trigger: Trigger, inputs: Tensor) -> Tensor:
    """Stamp a copy: a user's trigger that writes in place would change the clean inputs too."""
    return trigger(inputs.clone())


AnyTriggerSpec = Annotated[
    PatchSpec
    | ChecksSpec
    | StripsSpec
    | BlendedSpec
    | AddedSpec
    | RaisedSpec
    | MinorityLookSpec
    | FeaturesSpec
    | OwnTriggerSpec,
    BY_KIND,
]


def as_minority(groups: Groups) -> Trigger:
    """Return what makes majority images look like those of a constructed minority.

    Raises:
        DataError: If the minority is not constructed.
    """
    if not isinstance(groups, StyleGroups):
        raise DataError(
            "no poison can change the group of an example where groups are in the data: this one "
            "needs dataset.minority inverted, rotated or faded"
        )
    return partial(_restyled, style=groups.style)


def _restyled(images: Tensor, style: Style) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(style(images.numpy())))
