"""Tables and figures as run folders hold them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

NAMES = dict.fromkeys(("name", "variant", "group", "poison"), str)
"""Columns whose text may look like a number."""
ROUNDING = 1e-7  # tolerance of a ratio of two figures, which tables hold to 9 digits


def read_table(source: Path | TextIO, columns: Mapping[str, type] | None = None) -> pd.DataFrame:
    """Return a CSV file. Only an empty cell is a missing value: a group may be called None, or NA.

    Args:
        source: The file.
        columns: Those to read and what they hold; all by default.

    Raises:
        ValueError: If a column is not there, or a cell holds something else.
    """
    return pd.read_csv(
        source,
        usecols=None if columns is None else list(columns),
        dtype=dict(columns or NAMES),
        keep_default_na=False,
        na_values=[""],
    )


def last_restart(rounds: pd.DataFrame) -> float:
    """Return the last round before the model restarted, by ``rounds.csv``; NaN if it never did."""
    return rounds.loc[rounds["restarted"] == 1, "round"].max()


def after_round(table: pd.DataFrame, last: float) -> pd.DataFrame:
    """Return the rows of rounds after ``last``; all of them if that is NaN."""
    return table[~(table["round"] <= last)]


def answered(clients: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of clients that gave an answer: the others took no part in their round."""
    return clients[~clients["status"].str.startswith("failed")]


def weighed(clients: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of clients whose weight is known; that of a rejected answer is 0."""
    return clients[clients["weight"].notna()]


def minorities(groups: pd.DataFrame) -> dict[str, bool]:
    """Return which groups of the table ``groups.csv`` are minorities, by name."""
    rows = zip(groups["group"], groups["is_minority"], strict=True)
    return {str(group): bool(is_so) for group, is_so in rows}


def finite_or_none(figures: Mapping[Any, float]) -> dict[str, float | None]:
    """Return figures by name as JSON can hold them: None where one is undefined or was driven to
    infinity."""
    return {str(k): float(value) if math.isfinite(value) else None for k, value in figures.items()}
