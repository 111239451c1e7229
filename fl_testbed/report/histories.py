"""What happened in each round of a run, read from its tables for the figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from clients.shard import Role
from fl_testbed.metrics import after_round, answered, last_restart, read_table, weighed
from fl_testbed.report.columns import shown_group
from fl_testbed.report.results import RunResult, as_written

ACCURACIES = "accuracies.csv"
CLIENT_COLUMNS = {
    "round": int,
    "client": int,
    "role": str,
    "status": str,
    "prior_weight": float,
    "weight": float,
    "suspicion": float,
}
GROUP_COLUMNS = {"round": int, "group": str, "accuracy": float}
ACCURACY_COLUMNS = {"round": int, "role": str, "accuracy": float}


def _read(path: Path, columns: Mapping[str, type]) -> pd.DataFrame:
    with as_written(path):
        return read_table(path, columns)


def client_history(folder: Path) -> pd.DataFrame:
    """Return a run's ``clients.csv``; clients that gave no answer are left out."""
    path = folder / "clients.csv"
    with as_written(path):
        clients = answered(read_table(path, CLIENT_COLUMNS))
        return clients.assign(role=clients["role"].map(Role))


def after_restart(folder: Path, clients: pd.DataFrame) -> pd.DataFrame:
    """Leave out rounds before a restart, as a run's figures do: they are not in the final model."""
    path = folder / "rounds.csv"
    if not path.exists():  # as in a replay
        return clients
    rounds = _read(path, {"round": int, "restarted": int})
    return after_round(clients, last_restart(rounds))


def weight_ratios_by_round(clients: pd.DataFrame) -> pd.DataFrame:
    """Return each role's weight over its prior weight; index: round, columns: roles."""
    sums = weighed(clients).groupby(["round", "role"])[["weight", "prior_weight"]].sum()
    ratios = (sums["weight"] / sums["prior_weight"]).unstack("role")
    return ratios.reindex(clients["round"].unique(), columns=[role.value for role in Role])


def suspicion_ranks(clients: pd.DataFrame) -> pd.DataFrame:
    """Return each update's rank by suspicion within its round: 0 most trusted, 1 least trusted.

    Unlike scores, ranks of different rounds are on one scale. Ties share their mean rank.
    """
    scored = clients[clients["suspicion"].notna()]
    by_round = scored.groupby("round")["suspicion"]
    rank, n = by_round.rank() - 1, by_round.transform("size") - 1
    return scored.assign(rank=(rank / n.where(n > 0)).fillna(0.5))[["role", "rank"]]


def group_accuracy_by_round(runs: Sequence[RunResult]) -> pd.DataFrame:
    """Return accuracy by group, mean over runs; index: round, columns: groups in their order."""
    tables = [_read(run.folder / "groups.csv", GROUP_COLUMNS) for run in runs]
    order = list(dict.fromkeys(tables[0]["group"]))
    joined = pd.concat(tables).groupby(["round", "group"])["accuracy"].mean().unstack("group")
    figures = [run.figures for run in runs]
    return joined.reindex(columns=order).rename(columns=lambda group: shown_group(group, figures))


def last_client_accuracies(runs: Sequence[RunResult]) -> pd.DataFrame:
    """Return the role and accuracy of all runs' clients, under each run's last tested model."""
    tables = [_read(run.folder / ACCURACIES, ACCURACY_COLUMNS) for run in runs]
    known = [table.dropna(subset="accuracy") for table in tables]
    last = pd.concat(own[own["round"] == own["round"].max()] for own in known)
    return last[["role", "accuracy"]]


def heard_by_round(clients: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, list[Role]]:
    """Return who was heard when.

    Returns:
        Weight over prior weight by client (rows, those that were ever sampled, by id) and round
        (columns), NaN where the client took no part; the rounds; and each row's role.
    """
    rounds = range(clients["round"].min(), clients["round"].max() + 1)  # also those without answers
    weight, prior = (
        clients.pivot_table(index="client", columns="round", values=name, dropna=False)
        for name in ("weight", "prior_weight")
    )
    weight = weight.reindex(columns=rounds)
    ratio = (weight / prior).to_numpy()
    roles = clients.drop_duplicates("client").set_index("client")["role"].loc[weight.index]
    return ratio, weight.columns.to_numpy(), [Role(role) for role in roles]
