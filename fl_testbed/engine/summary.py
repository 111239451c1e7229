"""The summary of a run, computed from its tables alone."""

from pathlib import Path
from typing import Any

import pandas as pd

from clients.shard import Role
from fl_testbed.engine.errors import NobodyHeardError
from fl_testbed.engine.evaluation import Figures
from fl_testbed.metrics import (
    after_round,
    answered,
    finite_or_none,
    last_restart,
    lifting,
    minorities,
    minority_and_majority,
    participation,
    read_table,
    spread,
    suppression,
    weight_by_group,
)
from fl_testbed.scenario import Scenario
from fl_testbed.scenario.parts import N_FINAL
from fl_testbed.scenario.poisons import DistributedBackdoorSpec
from strategies.randomness import Purpose, generator

SPREAD = ["client_accuracy_variance", "worst_clients_accuracy"]


def summarise(folder: Path, scenario: Scenario) -> dict[str, Any]:
    """Compute a run's summary from its tables alone, so that a resumed run has the same.

    Rounds up to a restart are left out: nothing of them is in the final model, and the restart
    leaves just the initial model. Only the figures of a lift's heuristic count all rounds.

    Raises:
        NobodyHeardError: If the final model could not learn from a single reply.
    """
    rounds, groups, attacks = (
        read_table(folder / f"{name}.csv") for name in ("rounds", "groups", "attacks")
    )
    restart = last_restart(rounds)
    is_trained = (rounds["round"] > 0) & ~(rounds["round"] <= restart)
    if is_trained.any() and not rounds.loc[is_trained, "n_usable"].any():
        raise NobodyHeardError(_why_nobody(rounds[is_trained], read_table(folder / "clients.csv")))
    n_final = scenario.evaluation.n_final or N_FINAL
    tested_rounds = rounds[is_trained & rounds["accuracy"].notna()]
    final = tested_rounds.tail(n_final)
    evaluated = final["round"]
    highest = tested_rounds["attack_success_rate"].rolling(max(len(final), 1)).mean().max()
    tested = groups[groups["round"].isin(evaluated)]
    by_group = tested.groupby("group", sort=False)["accuracy"]
    means = {name: final[name].mean() for name in Figures._fields} | minority_and_majority(tested)
    means["loss"] = final["loss"].mean(skipna=False)  # a NaN must not be averaged away
    by_poison = attacks[attacks["round"].isin(evaluated)].groupby("poison", sort=False)
    success = by_poison[["attack_success_rate", "flip_rate", "accuracy"]].mean()
    return {
        **described(scenario),
        "n_final": len(evaluated),
        "final_rounds": [int(r) for r in evaluated],
        "final": finite_or_none(means),
        "highest": finite_or_none({"attack_success_rate": highest}),
        "group_accuracy": finite_or_none(by_group.mean().to_dict()),
        "is_minority": minorities(groups),
        "attacks": {k: finite_or_none(row) for k, row in success.to_dict("index").items()},
        **_inferred(rounds["weight_residual"]),
        **_personal(read_table(folder / "personal.csv"), evaluated),
        "skipped_rounds": int(rounds["skipped"].notna().sum()),
        "unusable_replies": int(rounds["n_unusable"].sum()),
        **heard_and_lifted(folder, scenario, restart),
        **_untrained_pieces(folder, scenario, restart),
    }


def _why_nobody(rounds: pd.DataFrame, clients: pd.DataFrame) -> str:
    first, last = rounds["round"].min(), rounds["round"].max()
    told = clients.loc[clients["round"] == last, "status"]
    if told.empty:  # the strategy asked no client
        why = rounds["skipped"].iloc[-1]
    else:
        most = told.mode()[0]
        why = f"{(told == most).sum()} of {len(told)} {most}"
    return (
        f"no reply from round {first} on was usable; in round {last}, {why}: remove the folder to "
        "run it again"
    )


def described(scenario: Scenario) -> dict[str, Any]:
    """Return the part of a summary that describes the scenario."""
    return {
        "name": scenario.name,
        "variant": scenario.variant,
        "seed": scenario.seed,
        "rounds": scenario.rounds,
        "oracle": scenario.is_oracle,
        "n_poisoned": scenario.n_attacking,
    }


def heard_and_lifted(folder: Path, scenario: Scenario, restart: float) -> dict[str, Any]:
    """Return a summary's figures of whom the strategy heard and whom it lifted.

    Args:
        folder: The run's, with ``clients.csv`` and ``holdings.csv``.
        scenario: The run's.
        restart: The last round before the model restarted, NaN if it never did.
    """
    clients, holdings = (read_table(folder / f"{name}.csv") for name in ("clients", "holdings"))
    kept = after_round(clients, restart)
    rng = generator(scenario.seed, Purpose.BOOTSTRAP)
    judged = clients
    if scenario.n_attacking:  # else the attackers' role stays, for comparison
        idle = (clients["role"] == Role.POISONED.value) & ~_attacks(clients, scenario)
        judged = clients.assign(role=clients["role"].mask(idle))  # no role while idle
    heard = suppression(after_round(judged, restart), rng, selects=scenario.strategy.selects)
    population = scenario.clients.population
    counts = {role.value: len(population.clients(role)) for role in Role}
    for role, asked in participation(kept, counts).items():
        heard[role]["participation"] = asked
    return {
        "suppression": heard,
        "group_weight_ratio": weight_by_group(kept, holdings),
        "lifting": lifting(judged, restart),
    }


def _attacks(clients: pd.DataFrame, scenario: Scenario) -> pd.Series:
    """Return which rows of ``clients.csv`` are of an attacker in a round in which it attacks."""
    attacks = pd.Series(False, clients.index)
    for kind in scenario.attacker_kinds:
        if kind.ever_attacks:
            is_active = clients["round"].map(kind.schedule.build().is_active).astype(bool)
            attacks |= clients["client"].isin(kind.clients) & is_active
    return attacks


def _untrained_pieces(folder: Path, scenario: Scenario, restart: float) -> dict[str, Any]:
    """Return by poison which pieces of its trigger nobody trained on though others were trained on;
    empty if there are none."""
    untrained = {}
    for name, poison in scenario.named_poisons.items():
        if not isinstance(poison, DistributedBackdoorSpec):
            continue
        clients = after_round(answered(read_table(folder / "clients.csv")), restart)
        attacked = set(clients["client"][_attacks(clients, scenario)])
        n, places = poison.n_pieces, enumerate(scenario.attackers_with(name))
        trained = {place % n for place, client in places if client in attacked}
        if 0 < len(trained) < n:
            untrained[name] = sorted(set(range(n)) - trained)
    return {"untrained_pieces": untrained} if untrained else {}


def _personal(models: pd.DataFrame, evaluated: pd.Series) -> dict[str, Any]:
    """Return how well clients' own models do by role, and how evenly those of honest clients do;
    empty if clients have none."""
    if models.empty:
        return {}
    final = models[models["round"].isin(evaluated)]
    # Means by round first: later rounds have more of these models, and would count for more.
    by_round = final.groupby(["role", "round"], sort=False)[["accuracy", "attack_success_rate"]]
    means = by_round.mean().groupby("role", sort=False).mean()
    honest = final[final["role"] != Role.POISONED.value].groupby("round")["accuracy"]
    spreads = pd.DataFrame([spread(own.to_numpy()) for _, own in honest], columns=SPREAD).mean()
    by_role = {role: finite_or_none(row) for role, row in means.to_dict("index").items()}
    return {"personal": {**by_role, **finite_or_none(spreads.to_dict())}}


def _inferred(residuals: pd.Series) -> dict[str, Any]:
    """Return how well inferred weights explain the rounds; empty if weights are exact."""
    if residuals.isna().all():
        return {}
    return {"weight_residual": {"mean": float(residuals.mean()), "max": float(residuals.max())}}
