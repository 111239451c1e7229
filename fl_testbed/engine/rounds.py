"""The round loop of one run."""

import math
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from flwr.app import ArrayRecord, ConfigRecord
from torch import Tensor

from fl_testbed.data import Federation
from fl_testbed.engine.assembly import build_model, build_strategy
from fl_testbed.engine.evaluation import Evaluation, Evaluator
from fl_testbed.engine.grid import ClientGrid
from fl_testbed.engine.run_folder import RunFolder
from fl_testbed.metrics import suppression
from fl_testbed.scenario import Scenario
from strategies.randomness import Purpose, generator
from strategies.robust import RobustFedAvg, RoundLedger

FINAL_EVALUATIONS = 5  # averaged for the summary

OnRound = Callable[[int, Evaluation | None], None]


class Run:
    """One scenario on one grid, from its first or its last finished round to the end."""

    def __init__(
        self, scenario: Scenario, federation: Federation, grid: ClientGrid, folder: RunFolder
    ) -> None:
        self._scenario, self._federation = scenario, federation
        self._grid, self._folder = grid, folder
        self._strategy: RobustFedAvg = build_strategy(scenario, federation)
        self._evaluate = Evaluator(scenario, federation)
        self._arrays = ArrayRecord(build_model(scenario, federation.dataset).state_dict())

    def execute(self, on_round: OnRound, *, resume: bool = False) -> dict[str, Any]:
        """Run the rounds that are left and return the summary.

        Raises:
            TooFewClientsError: If a round has too few usable replies and the scenario says stop.
        """
        torch.set_num_threads(self._scenario.torch_threads)
        first = self._resume() if resume else self._start(on_round)
        for round_ in range(first, self._scenario.rounds + 1):
            began = perf_counter()
            self._train(round_)
            trained = perf_counter()
            evaluation = self._evaluate(self._arrays) if self._is_evaluated(round_) else None
            evaluated = perf_counter()
            assert self._strategy.ledger is not None
            self._record(round_, evaluation, self._strategy.ledger)
            times = (trained - began, evaluated - trained, perf_counter() - evaluated)
            self._folder.append("timings.csv", [(round_, *times)])
            self._checkpoint(round_)
            on_round(round_, evaluation)
        return self._finish()

    def _start(self, on_round: OnRound) -> int:
        self._folder.start()
        initial = self._evaluate(self._arrays)
        self._record(0, initial, RoundLedger(0))
        self._checkpoint(0)
        on_round(0, initial)
        return 1

    def _resume(self) -> int:
        round_, tensors = self._folder.resume()
        state: dict[str, Tensor] = {}
        arrays: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            (arrays if kind == "arrays" else state)[rest] = tensor
        self._arrays = ArrayRecord({name: arrays[name] for name in self._arrays})
        self._strategy.load_state_dict(state)
        self._folder.log(f"resumed after round {round_}")
        return round_ + 1

    def _checkpoint(self, round_: int) -> None:
        tensors = {f"arrays/{k}": torch.tensor(a.numpy()) for k, a in self._arrays.items()}
        tensors |= {f"strategy/{k}": v for k, v in self._strategy.state_dict().items()}
        self._folder.checkpoint(round_, tensors)

    def _train(self, round_: int) -> None:
        grid = self._grid
        grid.sample = self._sample(round_)
        config = ConfigRecord()
        messages = self._strategy.configure_train(round_, self._arrays, config, grid)
        arrays, _ = self._strategy.aggregate_train(round_, grid.send_and_receive(messages))
        grid.end_round()
        if arrays is not None:
            self._arrays = arrays
        messages = list(self._strategy.configure_evaluate(round_, self._arrays, config, grid))
        if messages:
            self._strategy.aggregate_evaluate(round_, grid.send_and_receive(messages))

    def _sample(self, round_: int) -> list[int]:
        n_clients, n_sampled = len(self._federation.population), self._scenario.n_sampled
        if n_sampled == n_clients:
            return list(range(n_clients))
        rng = generator(self._scenario.seed, Purpose.SAMPLING, round_)
        return sorted(rng.choice(n_clients, size=n_sampled, replace=False).tolist())

    def _is_evaluated(self, round_: int) -> bool:
        return round_ % self._scenario.evaluation.every == 0 or round_ == self._scenario.rounds

    def _record(self, round_: int, evaluation: Evaluation | None, ledger: RoundLedger) -> None:
        figures = (math.nan,) * 4
        if evaluation is not None:
            groups = evaluation.groups
            figures = (
                groups.accuracy,
                groups.worst,
                evaluation.attack_success_rate,
                evaluation.loss,
            )
            names = self._federation.group_names
            rows = zip(names, groups.n_examples, groups.accuracies, strict=True)
            self._folder.append("groups.csv", [(round_, *row) for row in rows])
        usable = sum(entry.status == "ok" for entry in ledger.clients)
        counts = (usable, len(ledger.clients) - usable, int(ledger.restarted), ledger.skipped)
        self._folder.append("rounds.csv", [(round_, *figures, *counts)])
        role = self._federation.population.role
        self._folder.append(
            "clients.csv",
            [
                (
                    round_,
                    entry.client,
                    role(entry.client).value,
                    entry.n_examples,
                    entry.status,
                    entry.prior_weight,
                    entry.weight,
                    entry.contribution,
                    entry.suspicion,
                    entry.update_norm,
                    entry.train_loss,
                )
                for entry in ledger.clients
            ],
        )

    def _finish(self) -> dict[str, Any]:
        self._folder.close()
        summary = summarise(self._folder, self._scenario)
        model = {name: torch.tensor(a.numpy()) for name, a in self._arrays.items()}
        self._folder.finish(model, summary)
        return summary


def summarise(folder: RunFolder, scenario: Scenario) -> dict[str, Any]:
    """Compute a run's summary from its tables alone, so that a resumed run has the same.

    Rounds before a restart are left out of the suppression figures: nothing of them is in the
    final model.
    """
    rounds, groups, clients = (
        pd.read_csv(folder.path / f"{name}.csv") for name in ("rounds", "groups", "clients")
    )
    evaluated = rounds[rounds["accuracy"].notna()]["round"].tail(FINAL_EVALUATIONS)
    final = rounds[rounds["round"].isin(evaluated)]
    columns = ("accuracy", "worst_group_accuracy", "attack_success_rate", "loss")
    restarts = rounds.loc[rounds["restarted"] == 1, "round"]
    clients = clients[clients["round"] > restarts.max()] if len(restarts) else clients
    by_group = groups[groups["round"].isin(evaluated)].groupby("group", sort=False)["accuracy"]
    rng = generator(scenario.seed, Purpose.BOOTSTRAP)
    return {
        "name": scenario.name,
        "variant": scenario.variant,
        "seed": scenario.seed,
        "rounds": scenario.rounds,
        "oracle": scenario.is_oracle,
        "final_rounds": [int(r) for r in evaluated],
        "final": {name: _number(final[name].mean()) for name in columns},
        "group_accuracy": {str(k): _number(v) for k, v in by_group.mean().items()},
        "skipped_rounds": int(rounds["skipped"].notna().sum()),
        "unusable_replies": int(rounds["n_unusable"].sum()),
        "suppression": suppression(clients, rng, selects=scenario.strategy.aggregation.selects),
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
