"""What a user's table says of each example, and which examples are for testing."""

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from reprlib import repr as brief

import numpy as np
from numpy.random import Generator

from fl_testbed.data.dataset import DataError, Examples
from fl_testbed.data.sources.splitting import split_clients, split_rows
from fl_testbed.data.sources.tables import Table

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Meanings:
    """The columns of a table, by their meaning."""

    label: str = "label"
    """The class."""
    attributes: Sequence[str] = ()
    """Columns that groups can be made of."""
    client: str | None = None
    """The natural client."""
    split: str | None = None
    """Whether an example is for training or for testing: ``train`` or ``test``."""
    test_fraction: float = 0.2
    """Without ``split``: the share of examples for testing, or of natural clients if named."""

    @property
    def columns(self) -> list[str]:
        """All columns that are given a meaning here."""
        others = [column for column in (self.client, self.split) if column is not None]
        return [self.label, *self.attributes, *others]

    def values(self, rows: Table) -> dict[str, tuple[str, ...]]:
        """Return the values of the label and of each attribute, in the order of their codes.

        Raises:
            DataError: If a row has no value: it would become a class, group or client of its own.
        """
        for name in self.columns:
            for row, value in enumerate(rows.columns[name]):
                if not value:
                    raise rows.fault(row, f"{name} is empty: fill it in, or leave the row out")
                if CONTROL.search(value):  # would garble tables and terminals
                    raise rows.fault(row, f"{name} has control characters in it: {brief(value)}")
        return {name: _in_order(set(rows.columns[name])) for name in (self.label, *self.attributes)}

    def examples(
        self,
        rows: Table,
        inputs: np.ndarray,
        values: Mapping[str, Sequence[str]],
        rng: Generator,
    ) -> tuple[Examples, Examples]:
        """Return the examples to train on and those to test on; their ids are rows of the table.

        Args:
            rows: The table.
            inputs: One input for each row.
            values: Of the label and of each attribute, in the order of their codes.
            rng: Draws the test set if no column gives the split; whole clients, if they are named.

        Raises:
            DataError: If the split column has other values than train and test, or only one.
        """
        codes = {name: rows.codes(name, own) for name, own in values.items()}
        clients = None
        if self.client is not None:
            clients = rows.codes(self.client, sorted(set(rows.columns[self.client])))
        attributes = {name: codes[name] for name in self.attributes}
        every = Examples(inputs, codes[self.label], attributes, clients)
        if self.split is not None:
            is_test = rows.codes(self.split, SPLITS) == SPLITS.index("test")
            if is_test.all() or not is_test.any():
                text = f"{self.split} must say train for some rows and test for others"
                raise DataError(f"{rows.path}: {text}")
            return every.take(np.flatnonzero(~is_test)), every.take(np.flatnonzero(is_test))
        if clients is not None:
            strata = np.zeros(len(every), dtype=int)
            return split_clients(every, strata, self.test_fraction, rng)
        return split_rows(every, self.test_fraction, rng)


def _in_order(values: AbstractSet[str]) -> tuple[str, ...]:
    """Sort values: whole numbers by size, so that 2 comes before 10, all else alphabetically."""
    try:
        return tuple(sorted(values, key=lambda value: (int(value), value)))
    except ValueError:
        return tuple(sorted(values))
