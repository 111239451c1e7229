"""Whom a reweighting lifted, and whether its heuristic told minority from poison."""

from typing import Any

import pandas as pd

from clients.shard import Role
from fl_testbed.metrics.suppression import pairwise_auc
from fl_testbed.metrics.tables import ROUNDING, after_round, answered, last_restart

RAISED = 1 + ROUNDING  # times the prior: a larger weight counts as lifted


def lifting(clients: pd.DataFrame, restart: float = float("nan")) -> dict[str, Any]:
    """Compute whom a run's reweighting lifted.

    A client counts as lifted where its weight before the rule is above its prior. The prior is its
    share among clients whose answers were usable: a rejected answer leaves more to the others.

    Args:
        clients: ``clients.csv``, one row per round and sampled client.
        restart: The last round before the model restarted, NaN if it never did. The heuristic is
            judged on all rounds, since it decides before the restart; weights are judged on the
            rounds after it.

    Returns:
        By role ``ratio``, Σ lifted weight / Σ prior; ``flagged_minority`` and ``flagged_poisoned``,
        each with ``precision`` (the role's share of lifted appearances) and ``recall`` (the lifted
        share of its appearances); and ``auc_by_loss`` and ``auc_by_confidence``: how often within a
        round an attacker looks worse than a minority client by the loss (confidence) that the
        server used. 0.5 means that the heuristic cannot tell them apart. Null where there is
        nothing to compute a figure from.
    """
    rows = answered(clients)
    doubts = rows.assign(doubt=-rows["believed_confidence"])
    after = after_round(rows[rows["lift"].notna()], restart)
    asked = rows["prior_weight"].groupby(rows["round"]).sum()
    usable = after["prior_weight"].groupby(after["round"]).sum()
    after = after.assign(prior_weight=after["prior_weight"] / after["round"].map(usable / asked))
    raised = after["lift"] > after["prior_weight"] * RAISED
    result: dict[str, Any] = {"ratio": {}}
    for role in Role:
        own = after["role"] == role.value
        prior = after.loc[own, "prior_weight"].sum()
        result["ratio"][role.value] = float(after.loc[own, "lift"].sum() / prior) if prior else None
    for name, role in (("minority", Role.HONEST_MINORITY), ("poisoned", Role.POISONED)):
        own = after["role"] == role.value
        result[f"flagged_{name}"] = {
            "precision": float(own[raised].mean()) if raised.any() and own.any() else None,
            "recall": float(raised[own].mean()) if own.any() else None,
        }
    result["auc_by_loss"] = pairwise_auc(rows, "believed_loss")
    result["auc_by_confidence"] = pairwise_auc(doubts, "doubt")
    return result


def attack_success_at(rounds: pd.DataFrame, level: float) -> float | None:
    """Return the attack success rate when a run first reached a worst-group accuracy.

    A faint backdoor is learnt in time without any lift, so runs are compared where they serve the
    worst group equally well, and not at one round.

    Args:
        rounds: ``rounds.csv``.
        level: The worst-group accuracy to reach.

    Returns:
        The rate at the first evaluation after the last restart that reached it; None if none did.
    """
    after = after_round(rounds, last_restart(rounds))
    reached = after[after["worst_group_accuracy"] >= level]
    return float(reached["attack_success_rate"].iloc[0]) if len(reached) else None
