"""What sets a minority apart: constructed styles, or groups that the data know of."""

from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from fl_testbed.data import DataError, Dataset, Groups
from fl_testbed.data.groups import StyleGroups, groups_by, one_group
from fl_testbed.data.styles import faded, inverted, rotated
from fl_testbed.scenario.spec import Spec


class MinoritySpec(Spec):
    """What every kind of minority answers."""

    is_style: ClassVar[bool] = True
    """Whether the holder's role decides on an example's group."""

    def build(self, dataset: Dataset) -> Groups:
        """Return the groups of a dataset's examples.

        Raises:
            DataError: If the dataset has no such groups.
        """
        raise TypeError(f"{type(self).__name__} has no groups")


class InvertedSpec(MinoritySpec):
    """Minority clients see images with inverted intensities."""

    kind: Literal["inverted"] = "inverted"

    def build(self, dataset: Dataset) -> Groups:
        """Return the groups plain and inverted."""
        _need_images(dataset, self.kind)
        return StyleGroups(("plain", "inverted"), inverted)


class RotatedSpec(MinoritySpec):
    """Minority clients see images turned anticlockwise by quarters."""

    kind: Literal["rotated"]
    quarter_turns: Annotated[PositiveInt, Field(le=3)] = 1  # of 90 degrees

    def build(self, dataset: Dataset) -> Groups:
        """Return the groups plain and rotated."""
        shape = _need_images(dataset, self.kind)
        if shape[1] != shape[2] and self.quarter_turns != 2:
            raise DataError(
                f"rotated needs square images, {dataset.name} has {shape[1]} × {shape[2]}"
            )
        return StyleGroups(("plain", "rotated"), partial(rotated, quarter_turns=self.quarter_turns))


class FadedSpec(MinoritySpec):
    """Minority clients see images as through haze, with intensities 1 - c + c x."""

    kind: Literal["faded"]
    contrast: Annotated[float, Field(gt=0, lt=1)] = 0.5  # the c above

    def build(self, dataset: Dataset) -> Groups:
        """Return the groups plain and faded."""
        _need_images(dataset, self.kind)
        return StyleGroups(("plain", "faded"), partial(faded, contrast=self.contrast))


class AttributesSpec(MinoritySpec):
    """Groups are combinations of attributes; the rare ones, or those named, are the minority."""

    kind: Literal["attributes"] = "attributes"
    by: Annotated[list[str], Field(min_length=1)]  # attributes of the dataset, or label
    groups: list[str] | None = None  # by default those below n / twice the number of groups
    is_style: ClassVar[bool] = False

    def build(self, dataset: Dataset) -> Groups:
        """Return the groups, one for each combination of values."""
        return groups_by(dataset, self.by, self.groups)


class NoMinoritySpec(MinoritySpec):
    """One group holds everything."""

    kind: Literal["none"]
    is_style: ClassVar[bool] = False

    def build(self, dataset: Dataset) -> Groups:
        """Return a single group."""
        return one_group(dataset)


AnyMinoritySpec = Annotated[
    InvertedSpec | RotatedSpec | FadedSpec | AttributesSpec | NoMinoritySpec,
    Field(discriminator="kind"),
]


def _need_images(dataset: Dataset, kind: str) -> tuple[int, ...]:
    if not dataset.holds_images:
        raise DataError(
            f"dataset.minority.kind {kind} needs images, {dataset.name} holds features: "
            "take attributes"
        )
    return dataset.input_shape
