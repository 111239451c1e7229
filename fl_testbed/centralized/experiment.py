"""Runs on pooled data, in the form that the launcher expects: check, compute, sum up."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from clients.poisons import check_candidates, check_cluster_count
from clients.shard import Role
from fl_testbed.centralized.judging import Verdict, judge
from fl_testbed.centralized.ledger import flagged_shares, ledger_figures, weight_by_group
from fl_testbed.centralized.plan import Plan
from fl_testbed.centralized.pool import Pool
from fl_testbed.centralized.preparation import Material, model_of, prepare
from fl_testbed.centralized.separation import separations
from fl_testbed.centralized.stages import FINAL, Result, run_stages
from fl_testbed.centralized.training import Revise, Trained, fit
from fl_testbed.data import Dataset
from fl_testbed.engine.datasets import DatasetCache, check_each, data_faults
from fl_testbed.engine.run_folder import ARRAYS, Record, Row, State
from fl_testbed.engine.threads import limit_threads
from fl_testbed.metrics import finite_or_none, minorities, minority_and_majority, read_table
from fl_testbed.scenario import CentralizedScenario
from fl_testbed.scenario.poisons import SubpopulationSpec
from fl_testbed.scenario.stages import FilterStageSpec
from strategies.randomness import Purpose, generator

spreads = False  # one run is one worker's: it cannot be divided


def stage_names(scenario: CentralizedScenario) -> list[str]:
    """Return what tables call each stage: its number, from 1, and its kind."""
    return [f"{number}_{stage.kind}" for number, stage in enumerate(scenario.stages, start=1)]


def columns(scenario: CentralizedScenario) -> dict[str, tuple[str, ...]]:
    """Return the tables of a run and their columns."""
    names = stage_names(scenario)
    by_stage = [f"{what}.{name}" for name in names for what in ("flagged", "score")]
    tables = {
        "outcome.csv": (
            "trained_on",
            "accuracy",
            "test_accuracy",
            "worst_group_accuracy",
            "worst_group_accuracy_with_poisoned",
            "attack_success_rate",
            "flip_rate",
            "attacked_accuracy",
            "loss",
        ),
        "groups.csv": ("group", "is_minority", "is_poisoned", "n_train", "n_test", "accuracy"),
        "examples.csv": ("example", "label", "group", "role", "weight", "score", *by_stage),
        "epochs.csv": (
            "training",
            "epoch",
            "auc_all",
            "auc_same_label",
            "threshold_error_all",
            "threshold_error_same_label",
        ),
        "timings.csv": ("trained_on", "seconds"),
    }
    if scenario.evaluation.scores:
        tables["scores.csv"] = ("training", "example", "epoch", "confidence")
    return tables


def check(scenarios: Sequence[CentralizedScenario], datasets: DatasetCache) -> None:
    """Build what runs start from, as far as that needs no training.

    Raises:
        ScenarioError: With a fault for each scenario whose data do not suffice.
    """

    def check_one(scenario: CentralizedScenario) -> None:
        with data_faults(scenario):
            material = prepare(scenario, datasets.get(scenario))
            model_of(scenario, material.dataset, FINAL)  # raises if the model does not fit the data
            check_poison(material)

    check_each(scenarios, check_one)


def check_poison(material: Material) -> bool:
    """Make the poison; if that takes a training, only check that there are examples enough for it.

    Returns:
        Whether it was made.

    Raises:
        ValueError: If the attacker holds too few examples, or there are none for it to imitate.
    """
    spec = material.scenario.poison
    if spec.kind in ("none", "dirty_label_backdoor", "label_flip"):
        _ = material.poisoned
        return True
    _ = material.poison
    wanted = spec.wanted(material.clean.labels[material.held].numpy())
    if wanted is not None:
        candidates, fraction = wanted
        check_candidates(torch.from_numpy(candidates), fraction, "examples that it can change")
    if isinstance(spec, SubpopulationSpec):
        check_cluster_count(len(material.held), spec.n_clusters)
    else:
        _ = material.goal  # raises if victims are too few or a trigger does not fit
    return False


def records(
    dataset: Dataset, scenario: CentralizedScenario, done: int, state: State | None
) -> Iterator[Record]:
    """Compute a run, as one record."""
    if done >= 0:
        return
    limit_threads(scenario.torch_threads)
    yield compute(scenario, dataset)


def compute(scenario: CentralizedScenario, dataset: Dataset) -> Record:
    """Train by the scenario's method, on the poisoned data and on clean ones, and judge both."""
    began = perf_counter()
    material = prepare(scenario, dataset)
    pool = material.poisoned
    result = train(material, pool)
    verdict = judge(result.trained.model, material)
    outcome, timings = [_outcome("poisoned", verdict)], [("poisoned", perf_counter() - began)]
    if scenario.evaluation.clean_twin and material.goal is not None:
        began = perf_counter()
        twin = train(material, material.clean)
        outcome.append(_outcome("clean", judge(twin.trained.model, material)))
        timings.append(("clean", perf_counter() - began))
    tables: dict[str, list[Row]] = {
        "outcome.csv": outcome,
        "groups.csv": [
            (row.group, int(row.is_minority), int(row.is_poisoned), *row[3:])
            for row in verdict.rows
        ],
        "examples.csv": _example_rows(result, pool, material.groups.names),
        "epochs.csv": _epoch_rows(scenario, result, pool),
        "timings.csv": timings,
    }
    if scenario.evaluation.scores:
        tables["scores.csv"] = _score_rows(scenario, result)
    model = {f"{ARRAYS}{k}": v for k, v in result.trained.model.state_dict().items()}
    return Record(0, tables, model, verdict)


def train(material: Material, pool: Pool) -> Result:
    """Run the scenario's method on a pool."""
    scenario = material.scenario

    def train_model(
        number: int, plan: Plan, epochs: int | None = None, revise: Revise | None = None
    ) -> Trained:
        model = model_of(scenario, material.dataset, number)
        rng = generator(scenario.seed, Purpose.TRAINING, number)
        return fit(model, pool, plan, scenario.training.build(epochs), rng, revise)

    rng_of = partial(generator, scenario.seed, Purpose.AGGREGATION)
    return run_stages(scenario.stages, pool, train_model, rng_of)


def _outcome(trained_on: str, verdict: Verdict) -> Row:
    groups, attack = verdict.groups, verdict.attack
    return (
        trained_on,
        groups.accuracy,
        groups.test_accuracy,
        groups.worst,
        verdict.worst_with_poisoned,
        attack.rate,
        attack.flip_rate,
        attack.accuracy,
        verdict.loss,
    )


def _trainings(scenario: CentralizedScenario, result: Result) -> list[tuple[str, Trained]]:
    """Return every training of a method by name, the final one last."""
    found = [
        (name, finding.trained)
        for name, finding in zip(stage_names(scenario), result.findings, strict=True)
        if finding.trained is not None and finding.trained is not result.trained
    ]
    return [*found, ("final", result.trained)]


def _example_rows(result: Result, pool: Pool, names: Sequence[str]) -> list[Row]:
    scores = [finding.scores for finding in result.findings if finding.scores is not None]
    score = scores[0] if scores else 1 - result.trained.confidences[-1]
    by_stage = [
        [math.nan] * len(pool) if values is None else values.tolist()
        for finding in result.findings
        for values in (None if finding.flagged is None else finding.flagged.long(), finding.scores)
    ]
    weights = result.trained.plan.shares()
    columns = zip(
        range(len(pool)),
        pool.labels.tolist(),
        [names[group] for group in pool.groups.tolist()],
        [role.value for role in pool.roles()],
        weights.tolist(),
        score.tolist(),
        *by_stage,
        strict=True,
    )
    return list(columns)


def _epoch_rows(scenario: CentralizedScenario, result: Result, pool: Pool) -> list[Row]:
    rows = []
    for name, trained in _trainings(scenario, result):
        for epoch, confidences in enumerate(trained.confidences, start=1):
            everyone, same = separations(1 - confidences, pool)
            errors = (everyone.threshold_error, same.threshold_error)
            rows.append((name, epoch, everyone.auc, same.auc, *errors))
    return rows


def _score_rows(scenario: CentralizedScenario, result: Result) -> list[Row]:
    return [
        (name, example, epoch, confidence)
        for name, trained in _trainings(scenario, result)
        for epoch, confidences in enumerate(trained.confidences.tolist(), start=1)
        for example, confidence in enumerate(confidences)
    ]


def summarise(folder: Path, scenario: CentralizedScenario) -> dict[str, Any]:
    """Compute a run's summary from its tables alone."""
    outcome, groups, examples, epochs = (
        read_table(folder / f"{name}.csv") for name in ("outcome", "groups", "examples", "epochs")
    )
    outcomes: dict[str, dict[str, Any]] = outcome.set_index("trained_on").to_dict("index")  # pyright: ignore[reportAssignmentType]
    final = outcomes["poisoned"]
    if twin := outcomes.get("clean"):
        final["trigger_rate_unpoisoned"] = twin["attack_success_rate"]
        final["worst_group_accuracy_unpoisoned"] = twin["worst_group_accuracy"]
        final["damage"] = twin["attacked_accuracy"] - final["attacked_accuracy"]
    clean = groups[groups["is_poisoned"] == 0]
    final |= minority_and_majority(clean.rename(columns={"n_test": "n_examples"}))
    names = stage_names(scenario)
    filters = any(isinstance(stage, FilterStageSpec) for stage in scenario.stages)
    first = epochs[epochs["training"] == epochs["training"].iloc[0]].iloc[-1]
    return {
        "name": scenario.name,
        "variant": scenario.variant,
        "seed": scenario.seed,
        "oracle": scenario.is_oracle,
        "n_poisoned": int((examples["role"] == Role.POISONED.value).sum()),
        "final": finite_or_none(final),
        "group_accuracy": finite_or_none(dict(zip(clean["group"], clean["accuracy"], strict=True))),
        "is_minority": minorities(clean),
        "suppression": ledger_figures(
            examples, generator(scenario.seed, Purpose.BOOTSTRAP), filters=filters
        ),
        "group_weight_ratio": weight_by_group(examples),
        "flagged": flagged_shares(examples, names),
        "separation": finite_or_none(first.drop("training").to_dict()),
    }
