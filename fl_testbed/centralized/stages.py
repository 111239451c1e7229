"""Stages: most train a model by the plan so far; each changes the plan by what it finds."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from clients.training import logits_of, output_layer
from fl_testbed.centralized.activation_clustering import smaller_activation_cluster
from fl_testbed.centralized.balancing import balanced
from fl_testbed.centralized.epic import gradient_proxies, isolated
from fl_testbed.centralized.george import (
    clusters_within_classes,
    hardness,
    marked_within_classes,
    smaller_clusters,
)
from fl_testbed.centralized.group_dro import GroupDRO
from fl_testbed.centralized.jtt import error_set, upweighted
from fl_testbed.centralized.loss_filter import largest
from fl_testbed.centralized.plan import Plan, everything
from fl_testbed.centralized.pool import Pool
from fl_testbed.centralized.spectral_signatures import spectral_scores
from fl_testbed.centralized.spectre import spectre_scores
from fl_testbed.centralized.training import Trained, features_of
from fl_testbed.scenario import stages as specs
from strategies.shapes import Bool, Float, Tensor

FINAL = 0
"""The number of the training whose model is the result; stages are counted from 1."""

TrainModel = Callable[..., Trained]
"""Trains a model by a plan, for some number of epochs (the scenario's by default), and returns it;
the plan may be revised as training goes on."""


class Workplace(NamedTuple):
    """What a stage works with."""

    pool: Pool
    train: TrainModel
    rng: np.random.Generator


class Finding(NamedTuple):
    """What a stage did."""

    plan: Plan
    flagged: Bool[Tensor, " n"] | None = None
    """The examples that its heuristic marked, even if an oracle decided in its place."""
    scores: Float[Tensor, " n"] | None = None
    """Its score of each example: higher ones are marked sooner."""
    trained: Trained | None = None
    """Its model."""
    is_result: bool = False
    """Whether that model is the method's result: then no final training follows."""


class Result(NamedTuple):
    """A method's model and how it came about."""

    trained: Trained
    findings: tuple[Finding, ...]
    """Of each stage, in order."""


def run_stages(
    stages: Sequence[specs.StageSpec],
    pool: Pool,
    train: TrainModel,
    rng_of: Callable[[int], np.random.Generator],
) -> Result:
    """Run a method: its stages one after the other, then the final training by their plan.

    Args:
        stages: In order.
        pool: The training set.
        train: Trains a model, given the number of the training: a stage's, or ``FINAL``.
        rng_of: Random numbers for each stage, by its number.
    """
    plan = everything(len(pool))
    findings: list[Finding] = []
    for number, stage in enumerate(stages, start=1):
        in_place = isinstance(stage, specs.EpicStageSpec) and number == len(stages)
        own_train = partial(train, FINAL if in_place else number)
        finding = STAGES[type(stage)](stage, plan, Workplace(pool, own_train, rng_of(number)))
        findings.append(finding)
        plan = finding.plan
    if findings and findings[-1].is_result:
        trained = findings[-1].trained
        assert trained is not None
    else:
        trained = train(FINAL, plan)
    return Result(trained, tuple(findings))


def lifted(stage: specs.LiftStageSpec, flagged: Bool[Tensor, " n"], pool: Pool) -> Tensor:
    """Return which examples a lift lifts: those it flagged, or those an oracle names."""
    return {
        "flagged": flagged,
        "minority": pool.is_minority,
        "poisons": pool.is_poisoned,
        "flagged_and_poisons": flagged | pool.is_poisoned,
        "flagged_and_minority": flagged | pool.is_minority,
    }[stage.amplify]


def removed(
    stage: specs.FilterStageSpec,
    flagged: Bool[Tensor, " n"],
    kept: Bool[Tensor, " n"],
    place: Workplace,
) -> Bool[Tensor, " n"]:
    """Return which examples a filter removes: those it flagged, as many random ones, or those an
    oracle names."""
    pool = place.pool
    if stage.remove == "random":
        rows = kept.nonzero().squeeze(1).numpy()
        drawn = torch.zeros_like(kept)
        drawn[torch.from_numpy(place.rng.permutation(rows)[: int(flagged.sum())])] = True
        return drawn
    return {
        "flagged": flagged,
        "flagged_but_minority": flagged & ~pool.is_minority,
        "poisons": pool.is_poisoned,
    }[stage.remove]


def _jtt(stage: specs.JTTStageSpec, plan: Plan, place: Workplace) -> Finding:
    trained = place.train(plan, stage.epochs)
    confidence = trained.confidences[-1]
    error = error_set(confidence, stage.threshold) & plan.kept
    chosen = lifted(stage, error, place.pool)
    if stage.factor == "balance":  # λ = -1 in the authors' code
        factors = balanced(chosen.long(), plan.weights)
    else:
        factors = upweighted(chosen, stage.factor)
    return Finding(plan.times(factors), error, 1 - confidence, trained)


def _george(stage: specs.GeorgeStageSpec, plan: Plan, place: Workplace) -> Finding:
    trained, pool = place.train(plan, stage.epochs), place.pool
    features = features_of(trained.model, pool.inputs)
    weights = output_layer(trained.model).get_parameter("weight").detach()
    points = hardness(features, weights, pool.labels)
    clusters = clusters_within_classes(
        points, pool.labels, plan.kept, stage.max_clusters, place.rng
    )
    flagged = smaller_clusters(clusters, pool.labels, plan.kept) & plan.kept
    if stage.amplify == "flagged":
        groups = clusters
    elif stage.amplify.startswith("flagged_and_"):
        told = pool.is_poisoned if stage.amplify.endswith("poisons") else pool.is_minority
        groups = clusters + (int(clusters.max()) + 1) * told.long()
    else:
        groups = marked_within_classes(lifted(stage, flagged, pool), pool.labels)
    dro = GroupDRO(groups, stage.step_size, stage.adjustment)
    return Finding(plan._replace(dro=dro), flagged, None, trained)


def _group_dro(stage: specs.GroupDROStageSpec, plan: Plan, place: Workplace) -> Finding:
    groups = place.pool.annotated if stage.by == "group" else place.pool.labels
    if stage.poisons_apart:
        groups = torch.where(place.pool.is_poisoned, int(groups.max()) + 1, groups)
    return Finding(plan._replace(dro=GroupDRO(groups, stage.step_size, stage.adjustment)))


def _balance(stage: specs.BalanceStageSpec, plan: Plan, place: Workplace) -> Finding:
    parts = place.pool.labels if stage.by == "class" else place.pool.annotated
    return Finding(plan.times(balanced(parts, plan.weights)))


def _filtered(
    stage: specs.FilterStageSpec,
    plan: Plan,
    place: Workplace,
    trained: Trained,
    flagged: Bool[Tensor, " n"],
    scores: Float[Tensor, " n"] | None,
) -> Finding:
    gone = removed(stage, flagged, plan.kept, place)
    return Finding(plan.without(gone), flagged, scores, trained)


def _loss_filter(stage: specs.LossFilterStageSpec, plan: Plan, place: Workplace) -> Finding:
    trained = place.train(plan, stage.epochs)
    confidence = trained.confidences[-1]
    labels = place.pool.labels if stage.per_class else None
    flagged = largest(-confidence, plan.kept, stage.fraction, labels)  # the largest losses
    return _filtered(stage, plan, place, trained, flagged, 1 - confidence)


def _spectral_signatures(
    stage: specs.SpectralSignaturesStageSpec, plan: Plan, place: Workplace
) -> Finding:
    trained, pool = place.train(plan, stage.epochs), place.pool
    features = features_of(trained.model, pool.inputs)
    scores = spectral_scores(features, pool.labels, plan.kept)
    flagged = largest(scores, plan.kept, stage.fraction, pool.labels)
    return _filtered(stage, plan, place, trained, flagged, scores)


def _spectre(stage: specs.SpectreStageSpec, plan: Plan, place: Workplace) -> Finding:
    trained, pool = place.train(plan, stage.epochs), place.pool
    features = features_of(trained.model, pool.inputs)
    scores = spectre_scores(
        features, pool.labels, plan.kept, stage.fraction, stage.n_axes, stage.alpha, place.rng
    )
    flagged = largest(scores, plan.kept, stage.fraction, pool.labels)
    return _filtered(stage, plan, place, trained, flagged, scores)


def _activation_clustering(
    stage: specs.ActivationClusteringStageSpec, plan: Plan, place: Workplace
) -> Finding:
    trained, pool = place.train(plan, stage.epochs), place.pool
    features = features_of(trained.model, pool.inputs)
    flagged = smaller_activation_cluster(
        features, pool.labels, plan.kept, stage.max_share, stage.n_axes, place.rng
    )
    return _filtered(stage, plan, place, trained, flagged, None)


def _epic(stage: specs.EpicStageSpec, plan: Plan, place: Workplace) -> Finding:
    pool = place.pool
    flagged = torch.zeros(len(pool), dtype=torch.bool)

    def revise(epoch: int, model: nn.Module, plan: Plan) -> Plan:
        if epoch < max(1, stage.warm_up) or (epoch - stage.warm_up) % stage.every:
            return plan
        nonlocal flagged
        proxies = gradient_proxies(logits_of(model, pool.inputs), pool.labels)
        alone = isolated(proxies, pool.labels, plan.kept, stage.share, stage.max_cluster)
        flagged = flagged | alone
        return plan.without(removed(stage, alone, plan.kept, place))

    trained = place.train(plan, stage.epochs, revise)
    return Finding(trained.plan, flagged, None, trained, is_result=True)


STAGES: dict[type[specs.StageSpec], Callable[..., Finding]] = {
    specs.JTTStageSpec: _jtt,
    specs.GeorgeStageSpec: _george,
    specs.GroupDROStageSpec: _group_dro,
    specs.BalanceStageSpec: _balance,
    specs.LossFilterStageSpec: _loss_filter,
    specs.SpectralSignaturesStageSpec: _spectral_signatures,
    specs.ActivationClusteringStageSpec: _activation_clustering,
    specs.SpectreStageSpec: _spectre,
    specs.EpicStageSpec: _epic,
}
"""How each kind of stage is run."""
