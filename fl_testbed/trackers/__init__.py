"""Trackers: programs that show runs while they go on. Each is an optional extra."""

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path

import pandas as pd

from fl_testbed.engine.errors import TrackerError
from fl_testbed.engine.options import StartTracker
from fl_testbed.metrics import answered
from fl_testbed.report.histories import weight_ratios_by_round
from fl_testbed.scenario import Fault, ScenarioError


def start_trackers(names: Iterable[str], out: Path) -> list[StartTracker]:
    """Connect to trackers; return, for each, the function that begins to track a run.

    Args:
        names: ``tensorboard``, ``mlflow``, or both.
        out: Where run folders go.

    Raises:
        ScenarioError: If one is not installed, or cannot be reached.
    """
    started = []
    for name in dict.fromkeys(names):
        try:
            if name == "mlflow":
                from fl_testbed.trackers.mlflow import connect

                started.append(connect(out))
            else:
                from fl_testbed.trackers.tensorboard import TensorBoardRun

                started.append(TensorBoardRun)
        except ModuleNotFoundError as fault:
            text = f"needs {fault.name}: pip install 'fl-testbed[{name}]'"
            raise ScenarioError(Fault("", f"--tracker {name}", text)) from None
        except TrackerError as fault:
            raise ScenarioError(Fault("", f"--tracker {name}", str(fault))) from None
    return started


def round_figures(tables: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Return a round's numbers by name: figures, accuracy by group, weight ratio by role.

    Empty for runs on pooled data, which have no rounds: their summary holds all numbers.
    """
    if "rounds.csv" not in tables:
        return {}
    (row,) = tables["rounds.csv"].drop(columns="round").to_dict("records")
    figures = {str(name): value for name, value in row.items()}
    groups = tables["groups.csv"].set_index("group")["accuracy"]
    figures |= {f"group_accuracy/{group}": value for group, value in groups.items()}
    clients = answered(tables["clients.csv"])
    if len(clients):  # nobody trains in round 0
        ratios = weight_ratios_by_round(clients).iloc[0]
        figures |= {f"weight_ratio/{role}": value for role, value in ratios.items()}
    return finite(figures)


def finite(values: Mapping[str, object]) -> dict[str, float]:
    """Return the numbers among values that are finite."""
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, Real) and math.isfinite(value)
    }
