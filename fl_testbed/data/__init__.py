"""Datasets, their groups, and how they are shared out to clients."""

from fl_testbed.data.dataset import DataError, Dataset, Examples, long_tailed
from fl_testbed.data.federation import Federation, Goal
from fl_testbed.data.groups import GroupedExamples, Groups
from fl_testbed.data.population import Population

__all__ = [
    "DataError",
    "Dataset",
    "Examples",
    "Federation",
    "Goal",
    "GroupedExamples",
    "Groups",
    "Population",
    "long_tailed",
]
