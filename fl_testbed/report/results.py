"""Run folders as one table."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from clients.shard import Role

FIGURES = ("accuracy", "worst_group_accuracy", "attack_success_rate")


def load_results(folders: Iterable[Path]) -> pd.DataFrame:
    """Read finished runs, one row each: variant, seed, oracle, final figures, weight ratios."""
    rows = []
    for folder in folders:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        row: dict[str, Any] = {key: summary[key] for key in ("variant", "seed", "oracle")}
        row |= {name: _nan(summary["final"][name]) for name in FIGURES}
        for role in Role:
            ratio = summary["suppression"][role.value]["weight_ratio"]
            row[f"weight_ratio.{role.value}"] = _nan(ratio)
        rows.append(row)
    return pd.DataFrame(rows)


def mean_and_interval(values: pd.Series) -> tuple[float, float]:
    """Return the mean over seeds and half its 95 % interval (Student's t); NaN for one seed."""
    present = values.dropna()
    if present.empty:
        return math.nan, math.nan
    mean = float(present.mean())
    if len(present) == 1:
        return mean, math.nan
    quantile = float(student_t.ppf(0.975, len(present) - 1))
    return mean, quantile * float(np.std(present.to_numpy(), ddof=1)) / math.sqrt(len(present))


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
