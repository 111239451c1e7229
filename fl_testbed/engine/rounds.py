"""The round loop of one run, and its summary."""

import math
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import pandas as pd
from flwr.app import ArrayRecord, ConfigRecord
from torch import Tensor

from clients.app import PERSONAL
from fl_testbed.data import Federation
from fl_testbed.engine.assembly import build_model, build_strategy, with_attackers
from fl_testbed.engine.evaluation import Evaluation, Evaluator
from fl_testbed.engine.grid import ClientGrid
from fl_testbed.engine.placement import server_device
from fl_testbed.engine.recorded_updates import Recorder
from fl_testbed.engine.run_folder import FIGURES, Row
from fl_testbed.engine.threads import limit_threads
from fl_testbed.metrics import finite_or_none, lifting, read_table, suppression
from fl_testbed.scenario import Scenario
from strategies.flower_arrays import state_dict_of
from strategies.observed import Observed
from strategies.randomness import Purpose, generator
from strategies.robust import OK, ClientEntry, RobustFedAvg, RoundLedger

FINAL_EVALUATIONS = 5  # averaged for the summary

State = dict[str, Tensor]
"""All that a run needs to go on after a round, as named tensors."""


class RoundRecord(NamedTuple):
    """What a round leaves behind."""

    round_: int
    tables: dict[str, list[Row]]
    """New rows of the run folder's tables, by file name."""
    state: State
    evaluation: Evaluation | None
    updates: bytes = b""
    """What clients sent, as a file, where the scenario wants it recorded."""
    notes: tuple[str, ...] = ()
    """What was decided on the way: devices, sizes of cohorts."""


class Run:
    """One scenario on one grid. It computes; whoever iterates over it writes."""

    def __init__(self, scenario: Scenario, federation: Federation, grid: ClientGrid) -> None:
        limit_threads(scenario.torch_threads)
        self._scenario, self._federation = scenario, federation
        device, where = server_device(scenario, federation.dataset)
        self._grid = with_attackers(grid, scenario, device)
        self._grid.notes += [where] if where else []
        self._strategy: RobustFedAvg | Observed = build_strategy(scenario, federation, device)
        self._evaluate = Evaluator(scenario, federation, device)
        self._recorder: Recorder | None = None  # of the last round, if updates are recorded
        model = build_model(scenario, federation.dataset)
        self._n_parameters = sum(parameter.numel() for parameter in model.parameters())
        self._arrays = ArrayRecord(model.state_dict())
        self._has_complained = False

    def rounds(self, done: int = -1, state: State | None = None) -> Iterator[RoundRecord]:
        """Yield a record for each round; round 0 is the initial model.

        Args:
            done: The last round that is recorded already.
            state: The state of its record.

        Raises:
            TooFewClientsError: If a round has too few usable replies and the scenario says stop.
        """
        if state is not None:
            self._load_state(state)
        for round_ in range(done + 1, self._scenario.rounds + 1):
            began = perf_counter()
            if round_ > 0:
                self._train(round_)
            trained = perf_counter()
            evaluation = self._evaluate(self._arrays) if self._is_evaluated(round_) else None
            tables = self._tables(round_, evaluation)
            tables["timings.csv"] = [(round_, trained - began, perf_counter() - trained)]
            updates = b"" if self._recorder is None else self._recorder.content()
            notes = (*self._grid.notes, *self._complaints(round_))
            self._grid.notes.clear()
            yield RoundRecord(round_, tables, self._state(), evaluation, updates, notes)

    def _state(self) -> State:
        state = {f"arrays/{k}": v for k, v in state_dict_of(self._arrays).items()}
        state |= {f"strategy/{k}": v for k, v in self._strategy.state_dict().items()}
        return state | {f"client/{k}": v for k, v in self._grid.state_dict().items()}

    def _load_state(self, state: State) -> None:
        parts: dict[str, State] = {"arrays": {}, "strategy": {}, "client": {}}
        for name, tensor in state.items():
            kind, _, rest = name.partition("/")
            parts[kind][rest] = tensor
        self._arrays = ArrayRecord({name: parts["arrays"][name] for name in self._arrays})
        self._strategy.load_state_dict(parts["strategy"])
        self._grid.load_state_dict(parts["client"])

    def _train(self, round_: int) -> None:
        grid = self._grid
        grid.sample = self._sample(round_)
        grid.keep_order = self._strategy.keeps_running_sum(len(grid.sample), self._n_parameters)
        recording = self._scenario.record_updates
        # A rule that is tried on the record later may ask for losses.
        config = ConfigRecord({} if recording is None else {"report-loss": True})
        messages = self._strategy.configure_train(round_, self._arrays, config, grid)
        replies = grid.send_and_receive(messages)
        if recording is not None:
            self._recorder = Recorder(recording.dtype, self._arrays)
            replies = self._recorder.passing(replies)
        arrays, _ = self._strategy.aggregate_train(round_, replies)
        grid.end_round()
        if arrays is not None:
            self._arrays = arrays  # clients do not test it: the engine does

    def _complaints(self, round_: int) -> list[str]:
        """Say so the first time that clients fail or a round moves nothing: more may follow."""
        ledger = self._strategy.ledger
        if ledger is None or self._has_complained:
            return []
        unusable = [entry for entry in ledger.clients if entry.status != OK]
        if not unusable and not ledger.skipped:
            return []
        self._has_complained = True
        where = f"{self._scenario.variant} seed {self._scenario.seed}, round {round_}"
        if not unusable:
            return [f"{where}, moved nothing: {ledger.skipped}"]
        first, n = unusable[0], len(ledger.clients)
        what = f"client {first.client} {first.status}"
        return [f"{where}, {len(unusable)} of {n} replies are of no use: {what}"]

    def _sample(self, round_: int) -> list[int]:
        n_clients, n_sampled = len(self._federation.population), self._scenario.n_sampled
        if n_sampled == n_clients:
            return list(range(n_clients))
        rng = generator(self._scenario.seed, Purpose.SAMPLING, round_)
        return sorted(rng.choice(n_clients, size=n_sampled, replace=False).tolist())

    def _is_evaluated(self, round_: int) -> bool:
        return round_ % self._scenario.evaluation.every == 0 or round_ == self._scenario.rounds

    def _tables(self, round_: int, evaluation: Evaluation | None) -> dict[str, list[Row]]:
        ledger = self._strategy.ledger or RoundLedger(round_)
        tables: dict[str, list[Row]] = {"groups.csv": [], "attacks.csv": [], "personal.csv": []}
        figures = (math.nan,) * len(FIGURES)
        if evaluation is not None:
            groups = evaluation.groups
            rate, loss = evaluation.attack_success_rate, evaluation.loss
            figures = (groups.accuracy, groups.worst, rate, loss, *evaluation.clients)
            names = self._federation.group_names
            rows = zip(names, groups.n_examples, groups.accuracies, strict=True)
            tables["groups.csv"] = [(round_, *row) for row in rows]
            attacks = evaluation.attacks.items()
            tables["attacks.csv"] = [(round_, name, *figures) for name, figures in attacks]
            tables["personal.csv"] = [
                self._personal_row(round_, client, kept.array_records[PERSONAL])
                for client, kept in sorted(self._grid.states.items())
                if PERSONAL in kept.array_records
            ]
        usable = sum(entry.status == OK for entry in ledger.clients)
        counts = (usable, len(ledger.clients) - usable, int(ledger.restarted), ledger.skipped)
        tables["rounds.csv"] = [(round_, *figures, *counts, ledger.residual)]
        tables["clients.csv"] = [
            client_row(self._federation, round_, entry) for entry in ledger.clients
        ]
        return tables

    def _personal_row(self, round_: int, client: int, arrays: ArrayRecord) -> Row:
        role = self._federation.population.role(client).value
        return (round_, client, role, *self._evaluate.of_client(client, arrays))


def client_row(federation: Federation, round_: int, entry: ClientEntry) -> Row:
    """Return a line of ``clients.csv``."""
    return (
        round_,
        entry.client,
        federation.population.role(entry.client).value,
        entry.n_examples,
        entry.status,
        entry.prior_weight,
        entry.weight,
        entry.contribution,
        entry.suspicion,
        entry.update_norm,
        entry.train_loss,
        entry.lift,
        entry.believed_loss,
        entry.believed_confidence,
        entry.influence,
    )


def summarise(folder: Path, scenario: Scenario) -> dict[str, Any]:
    """Compute a run's summary from its tables alone, so that a resumed run has the same.

    Rounds before a restart are left out, as nothing of them is in the final model, and so is the
    model that a restart leaves, which is the initial one. Only what a lift goes by counts in all.
    """
    rounds, groups, attacks, clients = (
        read_table(folder / f"{name}.csv") for name in ("rounds", "groups", "attacks", "clients")
    )
    restart = rounds.loc[rounds["restarted"] == 1, "round"].max()  # the last, NaN without any
    is_trained = (rounds["round"] > 0) & ~(rounds["round"] <= restart)
    evaluated = rounds.loc[is_trained & rounds["accuracy"].notna(), "round"].tail(FINAL_EVALUATIONS)
    final = rounds[rounds["round"].isin(evaluated)]
    by_group = groups[groups["round"].isin(evaluated)].groupby("group", sort=False)["accuracy"]
    by_poison = attacks[attacks["round"].isin(evaluated)].groupby("poison", sort=False)
    success = by_poison[["attack_success_rate", "flip_rate", "accuracy"]].mean()
    return {
        **described(scenario),
        "final_rounds": [int(r) for r in evaluated],
        "final": {name: finite_or_none(final[name].mean()) for name in FIGURES},
        "group_accuracy": {str(k): finite_or_none(v) for k, v in by_group.mean().items()},
        "attacks": {
            str(poison): {name: finite_or_none(value) for name, value in row.items()}
            for poison, row in success.iterrows()
        },
        **_inferred(rounds["weight_residual"]),
        **_personal(read_table(folder / "personal.csv"), evaluated),
        "skipped_rounds": int(rounds["skipped"].notna().sum()),
        "unusable_replies": int(rounds["n_unusable"].sum()),
        **heard_and_lifted(scenario, clients, restart),
    }


def described(scenario: Scenario) -> dict[str, Any]:
    """Return what a summary says of a scenario."""
    return {
        "name": scenario.name,
        "variant": scenario.variant,
        "seed": scenario.seed,
        "rounds": scenario.rounds,
        "oracle": scenario.is_oracle,
        "n_poisoned": sum(kind.count for kind in scenario.attacker_kinds if kind.ever_attacks),
    }


def heard_and_lifted(scenario: Scenario, clients: pd.DataFrame, restart: float) -> dict[str, Any]:
    """Return a summary's figures of whom the strategy heard and lifted.

    Args:
        scenario: Whose strategy.
        clients: The table ``clients.csv``.
        restart: The last round before the model began again, NaN where it never did.
    """
    kept = clients[~(clients["round"] <= restart)]
    rng = generator(scenario.seed, Purpose.BOOTSTRAP)
    return {
        "suppression": suppression(kept, rng, selects=scenario.strategy.selects),
        "lifting": lifting(clients, restart),
    }


def _personal(models: pd.DataFrame, evaluated: pd.Series) -> dict[str, Any]:
    """Return how well clients' own models do by role; nothing where they have none."""
    if models.empty:
        return {}
    final = models[models["round"].isin(evaluated)].groupby("role", sort=False)
    means = final[["accuracy", "attack_success_rate"]].mean()
    return {
        "personal": {
            str(role): {name: finite_or_none(value) for name, value in row.items()}
            for role, row in means.iterrows()
        }
    }


def _inferred(residuals: pd.Series) -> dict[str, Any]:
    """Return how well inferred weights explain the rounds; nothing where weights are exact."""
    if residuals.isna().all():
        return {}
    return {"weight_residual": {"mean": float(residuals.mean()), "max": float(residuals.max())}}
