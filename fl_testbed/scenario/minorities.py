"""What sets a minority apart: constructed styles, or groups recorded in the data."""

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt

from fl_testbed.data import DataError, Dataset, Groups
from fl_testbed.data.groups import OwnGroups, StyleGroups, groups_by, one_group
from fl_testbed.data.styles import faded, inverted, rotated
from fl_testbed.scenario.own_specs import OwnSpec, flaw_of_inputs
from fl_testbed.scenario.spec import BY_KIND, FunctionSpec
from fl_testbed.scenario.users_code import OwnCode


class MinoritySpec(FunctionSpec):
    """What all kinds of minority have in common."""

    is_style: ClassVar[bool] = True
    """Whether an example's group depends on the role of the client that holds it."""

    def build(self, dataset: Dataset) -> Groups:
        """Return the groups of a dataset's examples: by default plain images and restyled ones.

        Raises:
            DataError: If the dataset has no such groups.
        """
        dataset.need_images(f"dataset.minority.kind {self.kind}", "attributes")
        return StyleGroups(("plain", self.kind), self.bind())


class InvertedSpec(MinoritySpec):
    """Minority clients see images with inverted intensities."""

    kind: Literal["inverted"] = "inverted"
    function = staticmethod(inverted)


class RotatedSpec(MinoritySpec):
    """Minority clients see images turned anticlockwise by quarters."""

    kind: Literal["rotated"]
    quarter_turns: Annotated[PositiveInt, Field(le=3)] = 1  # of 90 degrees
    function = staticmethod(rotated)

    def build(self, dataset: Dataset) -> Groups:
        """Return the groups plain and rotated."""
        groups, shape = super().build(dataset), dataset.input_shape
        if shape[1] != shape[2] and self.quarter_turns != 2:
            raise DataError(
                f"rotated needs square images, {dataset.name} has {shape[1]} × {shape[2]}"
            )
        return groups


class FadedSpec(MinoritySpec):
    """Minority clients see images as through haze, with intensities 1 - c + c x."""

    kind: Literal["faded"]
    contrast: Annotated[float, Field(gt=0, lt=1)] = 0.5  # the c above
    function = staticmethod(faded)


class AttributesSpec(MinoritySpec):
    """Groups are combinations of attributes; the rare ones, or those named, are the minority."""

    kind: Literal["attributes"] = "attributes"
    by: Annotated[list[str], Field(min_length=1)]  # attributes of the dataset, or label
    merge: dict[str, dict[str, list[str]]] | None = None  # by attribute: {name: [values]}
    groups: list[str] | None = None  # the minority; by default groups of < n / 2g, g groups
    is_style: ClassVar[bool] = False

    def build(self, dataset: Dataset) -> Groups:
        """Return the groups, one for each combination of values."""
        return groups_by(dataset, self.by, self.groups, self.merge)


class NoMinoritySpec(MinoritySpec):
    """One group holds everything."""

    kind: Literal["none"]
    is_style: ClassVar[bool] = False

    def build(self, dataset: Dataset) -> Groups:
        """Return a single group."""
        return one_group(dataset)


class OwnMinoritySpec(OwnSpec, MinoritySpec):
    """Your own minority, file.py:name or package.module:name: how it looks, or who is in it."""

    facts = frozenset({"inputs", "examples", "dataset"})

    @property
    def is_style(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether it asks for inputs, to restyle them."""
        return self.names("inputs")

    def _flaw_of_signature(self, code: OwnCode) -> str:
        wrong = super()._flaw_of_signature(code)
        asked = self.facts & code.parameters.keys()
        if not wrong and asked not in ({"inputs"}, {"examples"}, {"examples", "dataset"}):
            return (
                "needs either 'inputs', to restyle them, or 'examples' (and 'dataset', which says "
                "what their codes stand for), to mark those of the minority"
            )
        return wrong

    def build(self, dataset: Dataset) -> Groups:
        """Return two groups, of which the minority has the function's name."""
        if self.is_style:
            self._restyled(dataset.train.unit_inputs(slice(0, 2)))  # to find faults early
            return StyleGroups(("plain", self.code.name), self._restyled)
        whole = replace(dataset, train=dataset.train.locked(), test=dataset.test.locked())
        train, test = (
            self.called(examples=part, dataset=whole).astype(np.int64)
            for part in (whole.train, whole.test)
        )
        return OwnGroups(("others", self.code.name), train, test, frozenset({1}))

    def _restyled(self, inputs: np.ndarray) -> np.ndarray:
        """Restyle a copy: a user's function that writes in place would change the plain images."""
        return self.called(inputs=inputs.copy()).astype(np.float32, copy=False)

    def flaw_of(self, result: Any, *args: Any, **named: Any) -> str:
        """Require inputs of the shape that came in, or a bool for each example."""
        like, what, kind = named.get("inputs"), "inputs as floats", "f"
        if like is None:
            like, what, kind = named["examples"].labels, "bools", "b"
        if not isinstance(result, np.ndarray):
            return f"must return {what} in an array, returned {type(result).__name__}"
        if result.shape != like.shape or result.dtype.kind != kind:
            needs = f"must return {what} of shape {like.shape}"
            return f"{needs}, returned {result.dtype} of shape {result.shape}"
        flaw = flaw_of_inputs(result, like.shape[1:], is_image=like.ndim == 4)
        return flaw and f"must return inputs {flaw}"


AnyMinoritySpec = Annotated[
    InvertedSpec | RotatedSpec | FadedSpec | AttributesSpec | NoMinoritySpec | OwnMinoritySpec,
    BY_KIND,
]
