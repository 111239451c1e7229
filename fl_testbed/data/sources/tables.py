"""Tables in CSV files: read whole, or refused with the faulty line; and encoded as features."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as brief
from typing import TypeVar

import numpy as np

from fl_testbed.data.dataset import CategoryFeature, DataError, Feature, NumberFeature
from fl_testbed.data.sources.files import read_text

T = TypeVar("T")
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Table:
    """Some columns of a CSV file, row by row."""

    path: Path
    columns: Mapping[str, list[str]]
    lines: list[int]
    """The line number in the file of each row."""

    def __len__(self) -> int:
        return len(self.lines)

    def fault(self, row: int, text: str) -> DataError:
        """Return the error to raise about a row; it names the row's line."""
        return DataError(f"{self.path}:{self.lines[row]}: {text}")

    def codes(self, column: str, values: Sequence[str]) -> np.ndarray:
        """Return the index of each row's value among the allowed ones, int64, shape (rows,).

        Raises:
            DataError: If a row has another value.
        """
        places = {value: place for place, value in enumerate(values)}
        return self._parsed(column, places.get, f"one of {', '.join(values)}", np.int64)

    def numbers(self, column: str) -> np.ndarray:
        """Return a column of finite numbers, float64.

        Raises:
            DataError: If a row has anything else.
        """
        return self._parsed(column, _finite, "a number", np.float64)

    def check_unique(self, column: str) -> None:
        """Check that no two rows have the same value.

        Raises:
            DataError: If two rows do.
        """
        seen: dict[str, int] = {}
        for row, value in enumerate(self.columns[column]):
            if value in seen:
                raise self.fault(row, f"{column} {value} is in line {seen[value]} already")
            seen[value] = self.lines[row]

    def check_columns(self, names: Iterable[str]) -> None:
        """Check that the table has the named columns.

        Raises:
            DataError: If one is missing.
        """
        for name in names:
            if name not in self.columns:
                raise _no_column(self.path, name, self.columns)

    def are_numbers(self, column: str) -> np.ndarray:
        """Return for each row whether it has a finite number there, bool, shape (rows,)."""
        return np.array([_finite(text) is not None for text in self.columns[column]])

    def take(self, rows: Sequence[int] | np.ndarray) -> "Table":
        """Return some rows."""
        return Table(
            self.path,
            {name: [values[row] for row in rows] for name, values in self.columns.items()},
            [self.lines[row] for row in rows],
        )

    def _parsed(
        self, column: str, parse: Callable[[str], T | None], needed: str, dtype: type
    ) -> np.ndarray:
        parsed = []
        for row, text in enumerate(self.columns[column]):
            value = parse(text)
            if value is None:
                raise self.fault(row, f"{column} needs {needed}, got {brief(text)}")
            parsed.append(value)
        return np.array(parsed, dtype=dtype)


def read_table(
    path: Path,
    columns: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    skip: str | None = None,
) -> Table:
    """Read some columns of a CSV file.

    Args:
        path: The file, plain or gzipped; white space around values is ignored.
        columns: The columns to read, by name; all by default.
        names: The names of all columns, for a file without a header.
        skip: Lines that begin with this text are no rows.

    Raises:
        DataError: If the file is broken, a column is missing, or a row is too short or too long.
    """
    rows = _rows(path, skip)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: is empty")
    header = list(names) if names is not None else first[1]
    if columns is None:
        columns = header
        for column in columns:
            if header.count(column) > 1:
                raise DataError(
                    f"{path}: has {header.count(column)} columns of the name {column!r}"
                )
    for column in columns:
        if column not in header:
            raise _no_column(path, column, header)
    places = [header.index(column) for column in columns]
    values: list[list[str]] = [[] for _ in columns]
    lines: list[int] = []
    for line, row in [first, *rows] if names is not None else rows:
        if len(row) != len(header):
            raise DataError(
                f"{path}:{line}: needs {len(header)} columns, has {len(row)}: copy it again"
            )
        lines.append(line)
        for place, column in zip(places, values, strict=True):
            column.append(row[place])
    if not lines:
        raise DataError(f"{path}: has no rows")
    return Table(path, dict(zip(columns, values, strict=True)), lines)


def _no_column(path: Path, name: str, there: Iterable[str]) -> DataError:
    return DataError(f"{path}: has no column {name!r}; its columns: {', '.join(there)}")


def _rows(path: Path, skip: str | None) -> Iterator[tuple[int, list[str]]]:
    # Not splitlines, which also breaks lines at form feeds and inside quotes.
    reader = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    try:
        for row in reader:
            if row and not (skip is not None and row[0].startswith(skip)):
                yield reader.line_num, [value.strip() for value in row]
    except csv.Error as fault:
        raise DataError(f"{path}:{reader.line_num}: is not CSV ({fault})") from fault


def fit_features(
    train: Table, numeric: Sequence[str], logarithmic: Sequence[str], categories: Sequence[str]
) -> dict[str, Feature]:
    """Choose the encoding of columns from the training rows only.

    Args:
        train: The training rows.
        numeric: Columns that are standardised.
        logarithmic: Columns of which log(1 + x) is standardised.
        categories: Columns with one input for each value that occurs, ``?`` among them.
    """
    features: dict[str, Feature] = {}
    for place, column in enumerate((*numeric, *logarithmic)):
        is_log = column in logarithmic
        values = train.numbers(column)
        values = np.log1p(values) if is_log else values
        scale = float(values.std()) or 1.0
        features[column] = NumberFeature(place, float(values.mean()), scale, is_log)
    place = len(features)
    for column in categories:
        found = tuple(sorted(set(train.columns[column])))
        features[column] = CategoryFeature(place, found)
        place += len(found)
    return features


def encode(table: Table, features: Mapping[str, Feature]) -> np.ndarray:
    """Return the rows as float32, shape (rows, inputs); categories not in training are all 0."""
    parts = []
    for column, feature in features.items():
        if isinstance(feature, NumberFeature):
            parts.append(feature.encoded(table.numbers(column))[:, None])
        else:
            place = {value: i for i, value in enumerate(feature.values)}
            codes = np.array([place.get(value, -1) for value in table.columns[column]])
            parts.append(codes[:, None] == np.arange(len(feature.values)))
    return np.concatenate(parts, axis=1).astype(np.float32)


def _finite(text: str) -> float | None:
    """Return the number that a text gives, if float32 inputs can hold it; else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= LARGEST else None
