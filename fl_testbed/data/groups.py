"""Groups: the populations that examples belong to, and which of them are minorities.

A group is either given by the example itself (its attributes, perhaps with its label), or by the
style in which its holder sees it (constructed minorities: every example exists in each style).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fl_testbed.data.dataset import DataError, Dataset, Examples
from fl_testbed.data.styles import Style

LABEL = "label"


class GroupedExamples(NamedTuple):
    """Examples in the form that a model takes, each with its group."""

    inputs: Tensor
    """float32, images in [0, 1]."""
    labels: Tensor
    groups: Tensor
    """Indices into the groups' names, int64, shape (n,)."""

    def where(self, chosen: Tensor) -> "GroupedExamples":
        """Return some of the examples, given by a mask or by their rows."""
        return GroupedExamples(*(own[chosen] for own in self))


def minority_groups(counts: Sequence[int]) -> frozenset[int]:
    """Return the groups that hold fewer than n / 2g of the n examples of g groups.

    The paper counts clean and poisoned examples of a group as two groups: 8 where there are 2
    labels and 2 attributes (inferred; see docs/datasets.md). Of Waterbirds' 4,795 birds n / 8 finds
    the groups of 184 and 56; n / 4 would add the one of 1,057.

    Args:
        counts: How many training examples each group has.

    References:
        Panaitescu-Liess et al., Like Oil and Water: Group Robustness Methods and Poisoning
        Defenses May Be at Odds, ICLR 2024.
    """
    divisor = 2 * len(counts)
    return frozenset(g for g, count in enumerate(counts) if count * divisor < sum(counts))


def shown_name(name: str, *, is_minority: bool) -> str:
    """Return a group's name as tables and figures show it."""
    return f"{name} (minority)" if is_minority else name


@dataclass(frozen=True)
class OwnGroups:
    """Groups given by the examples themselves, whoever holds them."""

    names: tuple[str, ...]
    train: np.ndarray
    """Group of each training example, int64, shape (n_train,)."""
    test: np.ndarray
    minority: frozenset[int]
    """Which groups are minorities."""

    @property
    def is_minority(self) -> np.ndarray:
        """Marks of the groups that are minorities, shape (groups,)."""
        return np.isin(np.arange(len(self.names)), list(self.minority))

    def dress(self, examples: Examples, rows: np.ndarray, minority: np.ndarray) -> GroupedExamples:
        """Return some training examples; their holder does not matter here."""
        groups = self.held_groups(rows, minority)
        return _grouped(examples.unit_inputs(rows), examples.labels[rows], groups)

    def held_groups(self, rows: np.ndarray, minority: np.ndarray) -> np.ndarray:
        """Return the groups of some training examples."""
        return self.train[rows]

    def test_examples(self, examples: Examples, n: int | None) -> GroupedExamples:
        """Return the first n test examples."""
        inputs = examples.unit_inputs(slice(0, n))
        return _grouped(inputs, examples.labels[:n], self.test_groups(examples, n))

    def test_groups(self, examples: Examples, n: int | None) -> np.ndarray:
        """Return the groups of the first n test examples."""
        return self.test[:n]


@dataclass(frozen=True)
class StyleGroups:
    """Groups by holder: majority clients see images as they are, minority clients restyled."""

    names: tuple[str, str]
    """The names of the majority's and of the minority's group."""
    style: Style
    minority: frozenset[int] = frozenset({1})

    def dress(self, examples: Examples, rows: np.ndarray, minority: np.ndarray) -> GroupedExamples:
        """Return some training examples; those that the mask marks are in the minority's style."""
        inputs = examples.unit_inputs(rows)
        if minority.any():
            inputs[minority] = self.style(inputs[minority])
        groups = self.held_groups(rows, minority)
        return _grouped(inputs, examples.labels[rows], groups)

    def held_groups(self, rows: np.ndarray, minority: np.ndarray) -> np.ndarray:
        """Return the groups of some training examples, the restyled ones marked by the mask."""
        return minority.astype(np.int64)

    def test_examples(self, examples: Examples, n: int | None) -> GroupedExamples:
        """Return the first n test images twice: as the majority sees them, then the minority."""
        plain = examples.unit_inputs(slice(0, n))
        inputs, labels = np.concatenate([plain, self.style(plain)]), np.tile(examples.labels[:n], 2)
        return _grouped(inputs, labels, self.test_groups(examples, n))

    def test_groups(self, examples: Examples, n: int | None) -> np.ndarray:
        """Return the groups of the first n test images, each taken twice."""
        return np.repeat(np.arange(2), len(examples.labels[:n]))


Groups = OwnGroups | StyleGroups


def _grouped(inputs: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> GroupedExamples:
    """Return the examples as tensors, with copies of labels and groups, which may be views."""
    return GroupedExamples(torch.from_numpy(inputs), torch.tensor(labels), torch.tensor(groups))


def one_group(dataset: Dataset) -> OwnGroups:
    """Return a single group that holds everything."""
    zeros = [np.zeros(len(part), dtype=np.int64) for part in (dataset.train, dataset.test)]
    return OwnGroups(("all",), *zeros, minority=frozenset())


def groups_by(
    dataset: Dataset,
    by: Sequence[str],
    minority: Sequence[str] | None = None,
    merge: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
) -> OwnGroups:
    """Group examples by one or more attributes, of which ``label`` is one.

    Args:
        dataset: Has the attributes.
        by: Names of attributes; a group is one combination of their values, named by them in this
            order, such as ``Female, >50K``.
        minority: Names of the groups that are minorities; by default those of
            :func:`minority_groups`.
        merge: For attributes in ``by``, lists of values to merge, by their common name, such as
            ``{"age": {"over 60": ["60-69", "more than 70"]}}``. Other values stay as they are.

    Raises:
        DataError: If the dataset has no such attribute, value or group.
    """
    values: dict[str, tuple[str, ...]] = {LABEL: dataset.classes, **dataset.attributes}
    for name in by:
        if name not in values:
            raise DataError(
                f"{dataset.name} has no attribute {name!r}: dataset.minority.by can name "
                f"{', '.join(values)}"
            )
    if len(set(by)) < len(by):
        raise DataError(f"dataset.minority.by names an attribute twice: {', '.join(by)}")
    merge = merge or {}
    for name in merge:
        if name not in by:
            text = f"dataset.minority.merge has {name!r}, which dataset.minority.by lacks"
            raise DataError(text)
    merged = {name: _merged(name, values[name], merge.get(name, {})) for name in by}
    parts = itertools.product(*(own for own, _ in merged.values()))
    names = tuple(", ".join(part) for part in parts)
    train, test = (_codes(part, merged) for part in (dataset.train, dataset.test))
    if minority is None:
        rare = minority_groups(np.bincount(train, minlength=len(names)).tolist())
    else:
        rare = frozenset(group_index(names, name, "dataset.minority.groups") for name in minority)
    return OwnGroups(names, train, test, rare)


def group_index(names: Sequence[str], name: str, key: str) -> int:
    """Return the index of a group that is named in the scenario, under some key.

    Raises:
        DataError: If there is no group of this name.
    """
    if name not in names:
        raise DataError(f"there is no group {name!r}: {key} can name {'; '.join(names)}")
    return names.index(name)


def _merged(
    name: str, values: Sequence[str], merge: Mapping[str, Sequence[str]]
) -> tuple[list[str], np.ndarray]:
    """Return an attribute's values after some have been merged, and each earlier one's index."""
    into: dict[str, str] = {}
    key = f"dataset.minority.merge.{name}"
    for common, members in merge.items():
        for value in members:
            if value not in values:
                raise DataError(f"there is no {name} {value!r}: {key} can name {'; '.join(values)}")
            if value in into:
                raise DataError(f"{key} names {value!r} twice")
            into[value] = common
    called = [into.get(value, value) for value in values]
    names = list(dict.fromkeys(called))
    return names, np.array([names.index(name) for name in called])


def _codes(examples: Examples, merged: Mapping[str, tuple[list[str], np.ndarray]]) -> np.ndarray:
    """Return each example's combination of values, numbered as ``itertools.product`` does."""
    codes = np.zeros(len(examples), dtype=np.int64)
    for name, (names, index) in merged.items():
        own = examples.labels if name == LABEL else examples.attributes[name]
        codes = codes * len(names) + index[own]
    return codes
