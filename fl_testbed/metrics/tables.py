"""Tables as run folders hold them."""

from pathlib import Path
from typing import TextIO

import pandas as pd


def read_table(source: Path | TextIO, columns: list[str] | None = None) -> pd.DataFrame:
    """Return a CSV file. Only an empty cell is a missing value: a group may be called None, or NA.

    Args:
        source: The file.
        columns: Those to read; all by default.
    """
    return pd.read_csv(source, usecols=columns, keep_default_na=False, na_values=[""])


def answered(clients: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of clients that gave an answer: the others took no part in their round."""
    return clients[~clients["status"].str.startswith("failed")]


def weighed(clients: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of clients whose weight is known: a rejected answer has weight 0."""
    known = clients["weight"].notna() | clients["status"].str.startswith("rejected")
    return clients[known].fillna({"weight": 0})
