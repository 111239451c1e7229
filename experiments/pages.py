"""Tables in pages: made from result files, and written between marks with the tables' names.

    <!-- table: NAME -->
    | ...
    <!-- end: NAME -->

A script whose results a page shows has the page's path as ``PAGE`` and a function ``tables`` that
returns the tables' rows by name, using only files in the repository. ``python -m
experiments.pages`` writes the tables of all scripts into their pages, without running anything.
"""

import argparse
import importlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np
import pandas as pd

from fl_testbed.report.statistics import estimate

R, C = TypeVar("R"), TypeVar("C")
Rows = list[list[str]]
"""A table's cells, row by row; the first row is the heading."""
HERE = Path(__file__).parent
MARK = re.compile(r"<!-- (table|end): (\S+) -->")
MARKED = re.compile(r"(<!-- table: (\S+) -->\n)(.*?)(<!-- end: \2 -->)", re.DOTALL)


def filled(page: str, tables: Mapping[str, Rows]) -> str:
    """Return a page's text with every table written between the marks with its name.

    Raises:
        ValueError: If there are not marks for exactly these tables, each once.
    """
    marks = [name for kind, name in MARK.findall(page) if kind == "table"]
    pairs = [(kind, name) for name in marks for kind in ("table", "end")]
    if sorted(marks) != sorted(tables) or MARK.findall(page) != pairs:
        raise ValueError(
            "each table needs <!-- table: NAME --> and <!-- end: NAME -->, once and in this order, "
            f"got tables {sorted(tables)} and marks {MARK.findall(page)}"
        )
    return MARKED.sub(lambda found: found[1] + markdown(tables[found[2]]) + found[4], page)


def write(page: Path, tables: Mapping[str, Rows]) -> None:
    """Write tables into a page."""
    page.write_text(filled(page.read_text(encoding="utf-8"), tables), encoding="utf-8")


def scripts() -> list[ModuleType]:
    """Return the scripts of the experiments that make tables."""
    files = [f for f in sorted(HERE.rglob("*.py")) if "\ndef tables(" in f.read_text("utf-8")]
    names = [".".join(f.relative_to(HERE.parent).with_suffix("").parts) for f in files]
    return [importlib.import_module(name) for name in names]


def parser(doc: str | None, out: Path = Path("runs")) -> argparse.ArgumentParser:
    """Return a parser of a script's arguments, with ``--out``, the folder of its runs."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--out", type=Path, default=out, help="where the runs are, or go")
    return made


def keep(file: Path, rows: pd.DataFrame, digits: str = ".4g") -> None:
    """Write a result file; ``digits`` is the format of its numbers."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(file, index=False, float_format=f"%{digits}", lineterminator="\n")


def markdown(rows: Rows) -> str:
    """Return a table as Markdown."""
    ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(row)} |\n" for row in ruled)


def titled(tables: Mapping[str, Rows]) -> str:
    """Return tables as Markdown, one below the other under their names."""
    return "\n".join(f"{name}\n\n{markdown(rows)}" for name, rows in tables.items())


def records(rows: Iterable[Mapping[str, str]]) -> Rows:
    """Return a table from rows that map headings to cells; all rows have the same headings."""
    first, *others = rows
    return [[*first], *([*row.values()] for row in (first, *others))]


def crossed(
    corner: str, rows: Mapping[R, str], columns: Mapping[C, str], cell: Callable[[R, C], str]
) -> Rows:
    """Return a table with the names of rows and columns, and a cell for each pair of keys."""
    lines = [[name, *(cell(row, column) for column in columns)] for row, name in rows.items()]
    return [[corner, *columns.values()], *lines]


def where(rows: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Return the rows that have these values in these columns."""
    for column, value in values.items():
        rows = rows[rows[column] == value]
    return rows


def bold(text: str, when: bool) -> str:
    """Return a cell, bold where a condition holds."""
    return f"**{text}**" if when else text


def number(value: float, digits: int = 0) -> str:
    """Return a number with a proper minus sign, never −0, or a dash for NaN."""
    if math.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("-", "−" if float(text) else "")


def mean(values: Iterable[float], digits: int = 0) -> str:
    """Return the mean of values, one per seed, without NaNs."""
    return number(estimate(np.array([*values], dtype=float)).mean, digits)


def pm(mean: float, half_width: float, digits: int = 0) -> str:
    """Return a mean ± half of its interval, if that is known."""
    text = number(mean, digits)
    return text if math.isnan(half_width) else f"{text} ± {number(half_width, digits)}"


def mean_pm(values: Iterable[float], digits: int = 0) -> str:
    """Return the mean ± half of the 95 % interval (Student's t) of values, one per seed."""
    found = estimate(np.array([*values], dtype=float))
    return pm(found.mean, found.half_width, digits)


def difference(values: Iterable[float], digits: int = 0) -> str:
    """Return the mean ± half the interval of differences, bold where the interval excludes zero."""
    found = estimate(np.array([*values], dtype=float))
    text = pm(found.mean, found.half_width, digits)
    return bold(text, abs(found.mean) > found.half_width)


def mean_range(values: Iterable[float], digits: int = 0) -> str:
    """Return the mean of values, one per seed, with the lowest and highest unless all are equal."""
    present = [value for value in values if not math.isnan(value)]
    if not present:
        return number(math.nan)
    middle, *ends = mean(present, digits), *(number(f(present), digits) for f in (min, max))
    return middle if {*ends} == {middle} else f"{middle} ({'–'.join(ends)})"


if __name__ == "__main__":
    for script in scripts():
        write(script.PAGE, script.tables())
