"""Whom a strategy heard and whom it silenced, by role, from a run's ``clients.csv``."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from clients.shard import Role
from fl_testbed.metrics.tables import ROUNDING, answered, weighed

BOOTSTRAP_DRAWS = 1_000


def suppression(
    clients: pd.DataFrame, rng: np.random.Generator, *, selects: bool
) -> dict[str, Any]:
    """Compute the suppression figures of a run.

    Args:
        clients: ``clients.csv``, one row per round and sampled client. Rows without an answer
            (``failed``) and rows whose weight is unknown are left out; a rejected answer counts as
            weight 0.
        rng: Draws the bootstrap over clients.
        selects: Whether the rule chooses clients; only then is a weight of 0 a choice.

    Returns:
        By role ``weight_ratio``, ``contribution_ratio``, ``retention`` and ``halved`` (see
        docs/metrics.md), each null where the role never appears (contributions also where the
        server kept a running sum, which has none), and the number of ``appearances`` behind them;
        across roles ``minority_false_positive_rate``, ``filter_bias`` with its 95 % interval, and
        ``separability`` with the number of pairs behind it.
    """
    rows = weighed(answered(clients))
    result: dict[str, Any] = {}
    for role in Role:
        own = rows[rows["role"] == role.value]
        result[role.value] = {"appearances": len(own), **_of_role(own, selects)}
    if rows["contribution"].isna().all() and (rows["weight"] > 0).any():
        for figures in result.values():
            figures["contribution_ratio"] = None
    minority = result[Role.HONEST_MINORITY.value]["retention"]
    result["minority_false_positive_rate"] = None if minority is None else 1 - minority
    result["filter_bias"], result["filter_bias_interval"] = (
        _filter_bias(rows, rng) if selects else (None, None)
    )
    result["separability"], result["separability_pairs"] = _auc_of_pairs(rows, "suspicion")
    return result


def participation(clients: pd.DataFrame, n_clients: Mapping[str, int]) -> dict[str, float | None]:
    """Return, for each role present, its share of the clients asked over its share of all clients.

    Args:
        clients: ``clients.csv``; clients that failed to answer were asked too.
        n_clients: How many clients there are of each role.
    """
    asked, n_all = clients["role"].value_counts(), sum(n_clients.values())
    return {
        role: int(asked.get(role, 0)) * n_all / (len(clients) * n) if len(clients) else None
        for role, n in n_clients.items()
        if n
    }


def weight_by_group(clients: pd.DataFrame, holdings: pd.DataFrame) -> dict[str, float]:
    """Return the weight ratio of each group, where a client counts towards a group by the share of
    its examples that are of the group.

    Args:
        clients: ``clients.csv``, as for :func:`suppression`.
        holdings: ``holdings.csv``, how many examples of each group each client holds.

    Returns:
        By group Σ wᵢ sᵢ ∕ Σ pᵢ sᵢ over rounds and honest clients, with sᵢ the group's share of
        client i's examples. Groups that no honest client among those asked holds are left out.
    """
    rows = weighed(answered(clients))
    heard = rows.groupby("client")[["weight", "prior_weight"]].sum()
    total = holdings.groupby("client")["n_examples"].transform("sum")
    held = holdings.assign(share=holdings["n_examples"] / total)
    held = held[held["role"] != Role.POISONED.value].join(heard, on="client")
    spoken = held[["weight", "prior_weight"]].mul(held["share"], axis=0)
    sums = spoken.groupby(held["group"], sort=False).sum()
    sums = sums[sums["prior_weight"] > 0]
    return {str(group): float(r) for group, r in (sums["weight"] / sums["prior_weight"]).items()}


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return P(positive > negative) + P(equal) / 2, the area under the ROC curve."""
    ranks = pd.Series(np.concatenate([positive, negative])).rank().to_numpy()  # mean rank of ties
    wins = ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(wins / (len(positive) * len(negative)))


def _of_role(rows: pd.DataFrame, selects: bool) -> dict[str, float | None]:
    prior = rows["prior_weight"].sum()
    if not prior > 0:
        return dict.fromkeys(("weight_ratio", "contribution_ratio", "retention", "halved"))
    weights, priors = rows["weight"], rows["prior_weight"]
    return {
        "weight_ratio": float(weights.sum() / prior),
        "contribution_ratio": float(rows["contribution"].sum() / prior),
        "retention": float((weights > 0).mean()) if selects else None,
        "halved": float((weights < (1 - ROUNDING) * priors / 2).mean()),
    }


def _filter_bias(
    rows: pd.DataFrame, rng: np.random.Generator
) -> tuple[float | None, list[float] | None]:
    """Return removal rate of minority minus majority, and its bootstrap interval over clients."""
    removed = rows.assign(removed=~(rows["weight"] > 0))
    by_client = removed.groupby(["role", "client"])["removed"].agg(["sum", "count"])
    roles = by_client.index.get_level_values("role")
    parts = [
        by_client[roles == role.value].to_numpy()
        for role in (Role.HONEST_MINORITY, Role.HONEST_MAJORITY)
    ]
    if not all(len(part) for part in parts):
        return None, None

    def bias(minority: np.ndarray, majority: np.ndarray) -> float:
        removed_minority, removed_majority = (
            part[:, 0].sum() / part[:, 1].sum() for part in (minority, majority)
        )
        return float(removed_minority - removed_majority)

    draws = [
        bias(*(part[rng.integers(len(part), size=len(part))] for part in parts))
        for _ in range(BOOTSTRAP_DRAWS)
    ]
    interval = [float(x) for x in np.percentile(draws, [2.5, 97.5])]
    return bias(*parts), interval


def pairwise_auc(rows: pd.DataFrame, column: str) -> float | None:
    """Return how often within a round a column is larger for attackers than for the minority.

    Args:
        rows: Rows of ``clients.csv``; those where the column is missing are left out.
        column: What clients are ranked by.

    Returns:
        The AUC of poisoned against honest minority over all pairs within rounds; None where the
        column has no two different values, or no round has both roles.
    """
    return _auc_of_pairs(rows, column)[0]


def _auc_of_pairs(rows: pd.DataFrame, column: str) -> tuple[float | None, int]:
    scored = rows[rows[column].notna()]
    if scored[column].nunique() <= 1:
        return None, 0
    attackers, minority = (
        dict(iter(scored[scored["role"] == role.value].groupby("round")[column]))
        for role in (Role.POISONED, Role.HONEST_MINORITY)
    )
    wins, pairs = 0.0, 0
    for round_, scores in attackers.items():
        if round_ in minority:
            others = minority[round_].to_numpy()
            n_pairs = len(scores) * len(others)
            wins += area_under_curve(scores.to_numpy(), others) * n_pairs
            pairs += n_pairs
    return (wins / pairs if pairs else None), pairs
