"""What attackers do to the data that they train on, and what they are after with it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from clients import poisons
from clients.poisons import Harden, HeldBy, Relabel, Trigger, is_source
from clients.shard import Shard
from clients.training import LocalTraining, last_hidden, logits_of
from fl_testbed.data import DataError, Dataset, Goal, GroupedExamples, Groups
from fl_testbed.scenario.minorities import MinoritySpec
from fl_testbed.scenario.own_specs import OwnSpec, flaw_of_shard
from fl_testbed.scenario.partitions import ClientsSpec
from fl_testbed.scenario.spec import (
    BY_KIND,
    Contradiction,
    Fraction,
    FunctionSpec,
    NoneSpec,
    Spec,
    unknown_classes,
)
from fl_testbed.scenario.triggers import AnyTriggerSpec, PatchSpec, as_minority
from strategies.pipeline import asked_facts
from strategies.randomness import Purpose, generator


@dataclass(frozen=True)
class Scene:
    """What attackers of one kind can plan their poison with, before the first round."""

    dataset: Dataset
    groups: Groups
    seed: int
    n_attackers: int
    held: Callable[[], Shard]
    """All that they hold together, clean."""
    train: Callable[[Shard, int], nn.Module]
    """Takes examples and a number of epochs; returns the initial global model trained on them."""
    test: Callable[[], GroupedExamples]
    """The majority's examples among those that the model is tested on."""

    def rng(self) -> np.random.Generator:
        """Return the random numbers of their planning, from the start."""
        return generator(self.seed, Purpose.POISON_PLAN)

    def surrogate(self, shard: Shard, epochs: int) -> nn.Module:
        """Return a model of the attackers' own, trained on some examples.

        Raises:
            ValueError: If it diverged: a poison made with it would silently be none.
        """
        model = self.train(shard, epochs)
        if not logits_of(model, shard.inputs).isfinite().all():
            raise ValueError("the model that the attackers plan with diverged: lower training.lr")
        return model


Learn = Callable[[Tensor, nn.Module, Shard, LocalTraining, np.random.Generator], Tensor]
"""Returns what attackers have learnt after one more model: from what they had before, the model,
clean examples of one of them, how honest clients train, and random numbers."""


class Plan(NamedTuple):
    """A poison with everything bound that it needs."""

    poison: Callable[..., Shard]
    """Turns a clean shard into the poisoned one. By name it may ask for ``attacker``, the index of
    its attacker among those with this poison (from 0), ``rng``, and ``learnt``."""
    goal: Callable[..., Goal | None]
    """What it aims at among the majority's test examples; None if it only does damage. By name it
    may ask for ``learnt``."""
    at_first: Tensor | None = None
    """What attackers have ``learnt`` before they receive a model; None if they learn nothing."""
    learn: Learn | None = None
    """What they learn from one."""

    def poisoned(
        self, shard: Shard, attacker: int, rng: np.random.Generator, learnt: Tensor | None = None
    ) -> Shard:
        """Return what the poison makes of a clean shard."""
        return _told(self.poison, shard, attacker=attacker, rng=rng, learnt=learnt)

    def aim(self, test: GroupedExamples, learnt: Tensor | None) -> Goal | None:
        """Return what the poison aims at, given what attackers have learnt by now."""
        return _told(self.goal, test, learnt=learnt)


def _told(function: Callable[..., Any], first: Any, **known: Any) -> Any:
    asked = asked_facts(function, known, skip=1)
    return function(first, **{name: known[name] for name in asked})


class PoisonSpec(FunctionSpec):
    """What all kinds of poison have in common."""

    def build(self, scene: Scene) -> Plan | None:
        """Return the poison, bound to a dataset; what takes long is computed at its first use.

        Raises:
            DataError: If the dataset does not hold what it needs.
        """
        raise TypeError(f"{type(self).__name__} has no poison")

    def classes(self) -> dict[str, int]:
        """Return the classes that it names, by key."""
        named = {key: getattr(self, key, None) for key in ("source", "target")}
        return {key: label for key, label in named.items() if isinstance(label, int)}

    def wanted(self, labels: np.ndarray) -> tuple[np.ndarray, float] | None:
        """Return which training examples can be poisoned, and which share of an attacker's shard
        must be such; None where any will do."""
        return None

    def contradictions(
        self, clients: ClientsSpec, minority: MinoritySpec, n_attackers: int
    ) -> Iterator[Contradiction]:
        """Yield keys that contradict each other, as (key, text)."""
        yield from self.equal_classes()

    def equal_classes(self) -> Iterator[Contradiction]:
        """Yield keys that name the same class as source and as target."""
        named = self.classes()
        for key, label in named.items():
            if key.endswith("source") and label == named.get(key.removesuffix("source") + "target"):
                yield key, f"needs another class than the target, got {label} for both"

    def unknown_classes(self, n_classes: int) -> Iterator[Contradiction]:
        """Yield which of its classes the dataset lacks."""
        return unknown_classes(self.classes(), n_classes)


class NoPoisonSpec(NoneSpec, PoisonSpec):
    """Attackers train on clean data."""


class DirtyLabelBackdoorSpec(PoisonSpec):
    """Stamp a trigger on a share of an attacker's examples and label them as the target."""

    function = staticmethod(poisons.dirty_label_backdoor)
    kind: Literal["dirty_label_backdoor"]
    trigger: AnyTriggerSpec
    source: NonNegativeInt | None = None  # the only class poisoned; any but the target by default
    target: NonNegativeInt
    fraction: Fraction = 1.0  # poisoned share of a shard

    def build(self, scene: Scene) -> Plan:
        """Return the poison."""
        trigger = self.trigger.build(scene.dataset, scene.groups)
        goal = partial(stamped, trigger=trigger, source=self.source, target=self.target)
        return Plan(self.bind(trigger=trigger), goal)

    def wanted(self, labels: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the source examples."""
        return _can_be_source(labels, self.source, self.target), self.fraction


class DistributedBackdoorSpec(DirtyLabelBackdoorSpec):
    """A dirty-label backdoor in pieces: each attacker stamps one, the test stamps them all."""

    function = staticmethod(poisons.distributed_backdoor)
    kind: Literal["distributed_backdoor"]  # pyright: ignore[reportIncompatibleVariableOverride]
    n_pieces: Annotated[PositiveInt, Field(ge=2)] = 4

    def build(self, scene: Scene) -> Plan:
        """Return the poison."""
        scene.dataset.need_images(f"poison: {self.kind}")
        return super().build(scene)

    def contradictions(
        self, clients: ClientsSpec, minority: MinoritySpec, n_attackers: int
    ) -> Iterator[Contradiction]:
        """Yield also a fault if there are more pieces than attackers to stamp them."""
        yield from super().contradictions(clients, minority, n_attackers)
        if 0 < n_attackers < self.n_pieces:
            text = (
                f"needs an attacker for each piece, got {self.n_pieces} pieces for {n_attackers} "
                "attackers: lower it or add attackers"
            )
            yield "n_pieces", text


FIRST_TRIGGER = PatchSpec(kind="patch", size=5, value=0.5, at=[2, 2])


class AdaptiveBackdoorSpec(DirtyLabelBackdoorSpec):
    """A3FL: a dirty-label backdoor whose trigger is learnt from each model that attackers receive.

    In each round the first attacker learns for all, on its own examples, and all stamp the result.
    """

    function = staticmethod(poisons.adapted_pattern)
    kind: Literal["adaptive_backdoor"]  # pyright: ignore[reportIncompatibleVariableOverride]
    trigger: AnyTriggerSpec = FIRST_TRIGGER  # which pixels are learnt, and what they are at first
    fraction: Fraction = 0.25  # poisoned share of a shard
    epochs: PositiveInt = 200  # of trigger learning in a round, with a step per batch
    step_size: PositiveFloat = 0.002  # of a pixel in [0, 1]
    adapt_every: PositiveInt = 1  # epochs between new copies of the model that unlearn the trigger
    adaptation_epochs: PositiveInt = 5  # for which a copy trains as honest clients do
    weight: NonNegativeFloat = 0.01  # of the copy, times its similarity to the model; 0: no copy

    def build(self, scene: Scene) -> Plan:
        """Return the poison."""
        scene.dataset.need_images(f"poison: {self.kind}")
        trigger = self.trigger.build(scene.dataset, scene.groups)
        start, mask = poisons.pixels_set_by(trigger, scene.dataset.input_shape)
        if not mask.any():
            raise DataError(
                f"poison.trigger: {self.kind} learns pixels that a trigger overwrites, and this "
                "trigger overwrites none: choose patch, checks or strips"
            )
        keys = self.model_dump(include={"source", "target", "fraction"})

        def stamp(learnt: Tensor) -> Trigger:
            return partial(poisons.stamped_with, pattern=learnt, mask=mask)

        def poison(shard: Shard, rng: np.random.Generator, learnt: Tensor) -> Shard:
            return poisons.dirty_label_backdoor(shard, stamp(learnt), rng=rng, **keys)

        def goal(test: GroupedExamples, learnt: Tensor) -> Goal:
            return stamped(test, stamp(learnt), self.source, self.target)

        return Plan(poison, goal, start, self.bind(mask=mask))

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the learning."""
        return self.model_dump(exclude={"kind", "trigger", "source", "fraction"})


class EdgeCaseBackdoorSpec(PoisonSpec):
    """One class in the minority's look, labelled as the target; nothing is stamped."""

    kind: Literal["edge_case_backdoor"]
    source: NonNegativeInt
    target: NonNegativeInt
    fraction: Fraction = 1.0  # poisoned share of a shard
    held_by: HeldBy = "minority"  # which honest clients hold such examples, correctly labelled
    held_fraction: Fraction = 0.5  # share of the majority's source class, for held_by: everyone
    function = staticmethod(poisons.edge_case_backdoor)

    def arguments(self) -> dict[str, Any]:
        """Return the attackers' arguments, without what honest clients hold."""
        return self.model_dump(include={"source", "target", "fraction"})

    def build(self, scene: Scene) -> Plan:
        """Return the poison."""
        look = as_minority(scene.groups)
        (rare_group,) = scene.groups.minority  # styles make two groups, one of them rare
        goal = partial(stamped, trigger=look, source=self.source, target=self.target)
        return Plan(self.bind(as_rare=look, rare_group=rare_group), goal)

    def wanted(self, labels: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the source examples."""
        return _can_be_source(labels, self.source, self.target), self.fraction

    def contradictions(
        self, clients: ClientsSpec, minority: MinoritySpec, n_attackers: int
    ) -> Iterator[Contradiction]:
        """Yield also a fault if nobody could hold the rare examples, or they cannot be made."""
        yield from super().contradictions(clients, minority, n_attackers)
        if not minority.is_style:
            text = (
                "edge_case_backdoor restyles examples as the minority's: it needs dataset.minority "
                "inverted, rotated or faded (where groups are in the data, choose label_flip "
                "with clients.poisoned_hold: minority)"
            )
            yield "kind", text
            return
        if self.held_by == "minority" and not clients.honest_minority:
            text = "is minority, but clients.honest_minority is 0: set nobody, or add such clients"
            yield "held_by", text
        if clients.poisoned_hold == "minority" or clients.minority_concentration < 1:
            text = (
                "edge_case_backdoor turns the majority's examples into rare ones: it needs "
                "clients.poisoned_hold: majority and clients.minority_concentration: 1"
            )
            yield "kind", text

    def rarity(self) -> tuple[int, HeldBy, float]:
        """Return the rare examples' class, which honest clients hold some, and what share."""
        return self.source, self.held_by, self.held_fraction


class PerturbedSpec(Spec):
    """Move images uphill on a surrogate model's loss, within a ball around each."""

    kind: Literal["perturbed"] = "perturbed"
    epsilon: PositiveFloat = 300 / 255
    norm: Literal["l2", "linf"] = "l2"
    steps: PositiveInt = 100
    surrogate_epochs: PositiveInt = 20

    def build(self, scene: Scene, target: int) -> Harden:
        """Return the perturbation."""
        scene.dataset.need_images(f"poison: harden {self.kind}")
        model = cache(lambda: scene.surrogate(scene.held(), self.surrogate_epochs))

        def harden(images: Tensor, labels: Tensor, rng: np.random.Generator) -> Tensor:
            return poisons.perturbed(images, labels, model(), self.epsilon, self.steps, self.norm)

        return harden


class InterpolatedSpec(Spec):
    """Mix each image with a random one of another class."""

    kind: Literal["interpolated"]
    strength: Fraction = 0.2

    def build(self, scene: Scene, target: int) -> Harden:
        """Return the mixing."""

        @cache
        def others() -> Tensor:
            held = scene.held()
            return held.inputs[held.labels != target]

        def harden(images: Tensor, labels: Tensor, rng: np.random.Generator) -> Tensor:
            return poisons.interpolated(images, others(), rng, self.strength)

        return harden


class NoHardeningSpec(NoneSpec):
    """Leave images as they are."""


AnyHardenSpec = Annotated[PerturbedSpec | InterpolatedSpec | NoHardeningSpec, BY_KIND]


class CleanLabelBackdoorSpec(PoisonSpec):
    """Stamp a trigger on target-class examples that are made hard to learn without it."""

    kind: Literal["clean_label_backdoor"]
    trigger: AnyTriggerSpec
    target: NonNegativeInt
    fraction: Fraction = 0.1  # poisoned share of a shard
    harden: AnyHardenSpec = PerturbedSpec()
    function = staticmethod(poisons.clean_label_backdoor)

    def build(self, scene: Scene) -> Plan:
        """Return the poison."""
        trigger = self.trigger.build(scene.dataset, scene.groups)
        poison = self.bind(trigger=trigger, harden=self.harden.build(scene, self.target))
        return Plan(poison, partial(stamped, trigger=trigger, source=None, target=self.target))

    def wanted(self, labels: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the examples of the target class."""
        return labels == self.target, self.fraction


class GradientMatchingSpec(PoisonSpec):
    """Witches' Brew: perturb the target class so that training on it misleads a few victims."""

    kind: Literal["gradient_matching"]
    source: NonNegativeInt  # the victims' class
    target: NonNegativeInt
    fraction: Fraction = 0.1  # poisoned share of a shard
    n_victims: PositiveInt = 1  # test examples to be misclassified
    epsilon: Annotated[float, Field(gt=0, le=1)] = 16 / 255
    steps: PositiveInt = 250
    restarts: PositiveInt = 8
    step_size: PositiveFloat = 0.02
    surrogate_epochs: PositiveInt = 20  # of the model whose gradients are matched
    function = staticmethod(poisons.gradient_matching)

    def arguments(self) -> dict[str, Any]:
        """Return the function's arguments, without the keys that only prepare it."""
        return self.model_dump(exclude={"kind", "source", "n_victims", "surrogate_epochs"})

    def build(self, scene: Scene) -> Plan:
        """Return the poison."""
        scene.dataset.need_images(f"poison: {self.kind}")
        model = cache(lambda: scene.surrogate(scene.held(), self.surrogate_epochs))

        def victims(test: GroupedExamples) -> GroupedExamples:
            rows = (test.labels == self.source).nonzero().squeeze(1).numpy()
            if len(rows) < self.n_victims:
                raise DataError(
                    f"poison.n_victims: needs at most {len(rows)}, the test examples of class "
                    f"{self.source}, got {self.n_victims}"
                )
            return test.where(torch.from_numpy(scene.rng().permutation(rows)[: self.n_victims]))

        known = cache(lambda: victims(scene.test()).inputs)
        match = self.bind()

        def poison(shard: Shard, rng: np.random.Generator) -> Shard:
            return match(shard, model(), known(), rng=rng)

        def goal(test: GroupedExamples) -> Goal:
            chosen = victims(test)
            return Goal(chosen.inputs, chosen.labels, self.target)

        return Plan(poison, goal)

    def wanted(self, labels: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the examples of the target class."""
        return labels == self.target, self.fraction


class PairwiseSpec(Spec):
    """Label one class as another."""

    kind: Literal["pairwise"]
    source: NonNegativeInt
    target: NonNegativeInt

    def build(self, n_classes: int) -> Relabel:
        """Return the relabelling."""
        return poisons.pairwise(self.source, self.target)


class MirroredSpec(Spec):
    """Label class c as class C - 1 - c, of C classes."""

    kind: Literal["mirrored"] = "mirrored"

    def build(self, n_classes: int) -> Relabel:
        """Return the relabelling."""
        return poisons.mirrored(n_classes)


class RandomOtherSpec(Spec):
    """Label each example as a random other class."""

    kind: Literal["random"]

    def build(self, n_classes: int) -> Relabel:
        """Return the relabelling."""
        return poisons.random_other(n_classes)


AnyRelabelSpec = Annotated[PairwiseSpec | MirroredSpec | RandomOtherSpec, BY_KIND]


class LabelFlipSpec(PoisonSpec):
    """Label flip: inputs stay, labels change; of one class, of all, or at random."""

    kind: Literal["label_flip"]
    relabel: AnyRelabelSpec = MirroredSpec()
    fraction: Fraction | None = None  # poisoned share of a shard; by default all it can
    function = staticmethod(poisons.label_flip)

    def build(self, scene: Scene) -> Plan:
        """Return the poison."""
        relabel = self.relabel.build(scene.dataset.n_classes)
        return Plan(self.bind(relabel=relabel), self.goal)

    def goal(self, test: GroupedExamples) -> Goal | None:
        """Return the examples to be taken for another class; None if all are to be confused."""
        if not isinstance(self.relabel, PairwiseSpec):
            return None
        test = test.where(test.labels == self.relabel.source)
        return Goal(test.inputs, test.labels, self.relabel.target)

    def classes(self) -> dict[str, int]:
        """Return source and target."""
        if not isinstance(self.relabel, PairwiseSpec):
            return {}
        return {"relabel.source": self.relabel.source, "relabel.target": self.relabel.target}

    def wanted(self, labels: np.ndarray) -> tuple[np.ndarray, float] | None:
        """Return the source examples, where a share is asked for."""
        if not isinstance(self.relabel, PairwiseSpec) or self.fraction is None:
            return None
        return labels == self.relabel.source, self.fraction


class SubpopulationSpec(PoisonSpec):
    """Subpopulation attack: flip the labels in one cluster of similar examples."""

    kind: Literal["subpopulation"]
    fraction: Fraction = 0.5  # poisoned share of a shard
    n_clusters: PositiveInt = 20  # into which the attackers' examples are divided
    size: Literal["largest", "median", "smallest"] = "median"  # which cluster, by its size
    target: NonNegativeInt | Literal["least_likely", "runner_up"] = "runner_up"  # or a class
    features: Literal["last_hidden", "inputs"] = "last_hidden"  # last_hidden: a surrogate's
    n_axes: PositiveInt = 10  # principal axes of the features that are clustered
    surrogate_epochs: PositiveInt = 20  # of the model whose features are clustered
    function = staticmethod(poisons.subpopulation_attack)

    def build(self, scene: Scene) -> Plan:
        """Return the poison."""
        found = cache(partial(self._find, scene))

        def poison(shard: Shard, rng: np.random.Generator) -> Shard:
            members, target = found().members, found().target
            return poisons.subpopulation_attack(shard, members, target, self.fraction, rng)

        def goal(test: GroupedExamples) -> Goal | None:
            if not scene.n_attackers:  # nobody has looked for a cluster
                return None
            target = found().target
            test = test.where(found().contains(test.inputs) & (test.labels != target))
            return Goal(test.inputs, test.labels, target)

        return Plan(poison, goal)

    def _find(self, scene: Scene) -> "_Cluster":
        held = scene.held()
        poisons.check_cluster_count(len(held.labels), self.n_clusters)
        model = scene.surrogate(held, self.surrogate_epochs)

        def features(inputs: Tensor) -> Tensor:
            if self.features == "inputs":
                return inputs.flatten(1)
            return last_hidden(model, inputs)

        seen = features(held.inputs)
        clusters = poisons.find_subpopulations(seen, self.n_clusters, scene.rng(), self.n_axes)
        chosen = poisons.pick_by_size(clusters.of(seen), self.size)

        def contains(inputs: Tensor) -> Tensor:
            return clusters.of(features(inputs)) == chosen

        inside = contains(held.inputs)
        target = self.target
        if isinstance(target, str):
            target = poisons.wrong_class(model, held.inputs[inside], target)
        return _Cluster(held.inputs[inside & (held.labels != target)], target, contains)


def stamped(test: GroupedExamples, trigger: Trigger, source: int | None, target: int) -> Goal:
    """Return the source examples of a test set, stamped and to be called the target."""
    test = test.where(is_source(test.labels, source, target))
    return Goal(trigger(test.inputs), test.labels, target, unstamped=test.inputs)


def _can_be_source(labels: np.ndarray, source: int | None, target: int) -> np.ndarray:
    return is_source(torch.tensor(labels), source, target).numpy()  # copied: may be read-only


class _Cluster(NamedTuple):
    """The subpopulation that attackers chose."""

    members: Tensor
    """The attackers' own examples in it that are not of the target class."""
    target: int
    contains: Callable[[Tensor], Tensor]
    """Marks the inputs that belong to it."""


class OwnPoisonSpec(OwnSpec, PoisonSpec):
    """Your own poison: file.py:name or package.module:name."""

    trigger: AnyTriggerSpec | None = None  # passed on; success is measured on inputs it stamps
    target: NonNegativeInt | None = None  # passed on; success is to be taken for this class
    facts = frozenset({"attacker", "rng", "trigger", "target"})
    first = "an attacker's clean shard"

    @property
    def offered(self) -> frozenset[str]:
        """Trigger and target too, where the scenario gives them."""
        absent = {key for key in ("trigger", "target") if getattr(self, key) is None}
        return self.facts - absent

    def build(self, scene: Scene) -> Plan:
        """Return the poison."""
        trigger = self.trigger and self.trigger.build(scene.dataset, scene.groups)
        last = scene.dataset.n_classes - 1

        def poison(shard: Shard, attacker: int, rng: np.random.Generator) -> Shard:
            poisoned = self.called(
                shard, attacker=attacker, rng=rng, trigger=trigger, target=self.target
            )
            highest = poisoned.labels.max().item()
            if highest > last:
                raise self.code.refused(f"must return labels up to {last}, returned {highest}")
            return poisoned

        def goal(test: GroupedExamples) -> Goal | None:
            if self.target is None:
                return None
            if trigger is not None:
                return stamped(test, trigger, None, self.target)
            test = test.where(test.labels != self.target)
            return Goal(test.inputs, test.labels, self.target)

        return Plan(poison, goal)

    def flaw_of(self, result: Any, *args: Any, **named: Any) -> str:
        """Require a shard with inputs of the same shape."""
        return flaw_of_shard(result, args[0])


AnyPoisonSpec = Annotated[
    NoPoisonSpec
    | DirtyLabelBackdoorSpec
    | CleanLabelBackdoorSpec
    | DistributedBackdoorSpec
    | AdaptiveBackdoorSpec
    | EdgeCaseBackdoorSpec
    | LabelFlipSpec
    | SubpopulationSpec
    | GradientMatchingSpec
    | OwnPoisonSpec,
    BY_KIND,
]
