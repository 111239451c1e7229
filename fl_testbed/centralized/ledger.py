"""The ledger of a run on pooled data: what became of every example, and figures by role."""

from typing import Any

import numpy as np
import pandas as pd

from clients.shard import Role
from fl_testbed.metrics import finite_or_none, suppression


def ledger_figures(
    examples: pd.DataFrame, rng: np.random.Generator, *, filters: bool
) -> dict[str, Any]:
    """Compute the same suppression figures as for clients, by example.

    Args:
        examples: ``examples.csv``: every training example with its role, weight and score.
        rng: Draws the bootstrap over examples.
        filters: Whether the method removes examples.

    Returns:
        As :func:`fl_testbed.metrics.suppression`; examples have no contributions. The weight is
        that in the last epoch of the final training.
    """
    n = len(examples)
    as_clients = pd.DataFrame(
        {
            "round": 0,
            "client": examples["example"],
            "role": examples["role"],
            "status": "ok",
            "prior_weight": 1 / n,
            "weight": examples["weight"] / n,
            "contribution": np.nan,
            "suspicion": examples["score"],
        }
    )
    return suppression(as_clients, rng, selects=filters)


def weight_by_group(examples: pd.DataFrame) -> dict[str, float]:
    """Return the mean weight of each group's honest examples, 1 for a fair share."""
    honest = examples[examples["role"] != Role.POISONED.value]
    means = honest.groupby("group")["weight"].mean()
    return {str(group): float(weight) for group, weight in means.items()}


def flagged_shares(examples: pd.DataFrame, stages: list[str]) -> dict[str, dict[str, float | None]]:
    """Return by stage the share of each role that it flagged; null where a stage does not flag."""
    shares = {}
    for stage in stages:
        by_role = examples.groupby("role")[f"flagged.{stage}"].mean()
        shares[stage] = finite_or_none({r.value: by_role.get(r.value, np.nan) for r in Role})
    return shares
