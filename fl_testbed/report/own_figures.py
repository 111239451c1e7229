"""A user's own figures: functions of a run's tables, for comparisons and reports."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fl_testbed.metrics import read_table
from fl_testbed.report.columns import OWN
from fl_testbed.report.results import RunResult, as_written
from fl_testbed.scenario import Fault, ScenarioError
from fl_testbed.scenario.own_specs import Guarded
from fl_testbed.scenario.users_code import OwnCode, load


def with_own(runs: Sequence[RunResult], kinds: Iterable[str]) -> list[RunResult]:
    """Return runs with a user's own figures added to theirs.

    A figure is a function, ``file.py:name``. Its parameters name tables of a run's folder, such as
    ``groups`` or ``accuracies``; it gets them as data frames and returns a number.

    Raises:
        ScenarioError: If there is no such function, or a finished run has no such table.
        OwnCodeError: If it fails, or returns anything but a number; the text names its line.
    """
    figures = [_loaded(kind) for kind in kinds]
    names = [name for name, _ in figures]
    if twice := {name for name in names if names.count(name) > 1}:
        text = f"two functions have the name {twice.pop()}, which is their column's: rename one"
        raise ScenarioError(Fault("--figure", "", text))
    return [
        run._replace(figures=run.figures | {f"{OWN}{name}": of(run) for name, of in figures})
        if run.figures
        else run
        for run in runs
    ]


def _loaded(kind: str) -> tuple[str, Callable[[RunResult], float]]:
    try:
        code = load(kind)
    except ValueError as fault:
        raise ScenarioError(Fault("--figure", kind, str(fault))) from None
    function = Guarded(code, _flaw_of_number)
    return code.name, lambda run: float(function(**_tables(code, run.folder)))


def _tables(code: OwnCode, folder: Path) -> dict[str, pd.DataFrame]:
    asked = [name for name, p in code.parameters.items() if p.default is p.empty]
    tables = {}
    for name in asked:
        file = folder / f"{name}.csv"
        if not re.fullmatch(r"[a-z_]+", name) or not file.exists():
            there = ", ".join(sorted(path.stem for path in folder.glob("*.csv")))
            text = (
                f"{code.place}: {code.name} asks for {name!r}, but the run has the tables {there}"
            )
            raise ScenarioError(Fault(str(folder), "", text))
        with as_written(file):
            tables[name] = read_table(file)
    return tables


def _flaw_of_number(result: Any, **tables: pd.DataFrame) -> str:
    try:
        number = float(result)
    except (TypeError, ValueError):
        return f"must return a number, returned {type(result).__name__}"
    return "" if not math.isinf(number) else "must return a finite number, or NaN, returned inf"
