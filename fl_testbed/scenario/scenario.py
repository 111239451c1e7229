"""The whole experiment: one class per YAML mapping, one field per key."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt

from clients.reporting import Claim
from clients.training import LocalTraining
from fl_testbed.scenario.attacks import (
    AnyAttackSpec,
    AnyTrainingAttackSpec,
    AttackerKind,
    AttackersSpec,
    NoAttackSpec,
    NoTrainingAttackSpec,
    ScheduleSpec,
)
from fl_testbed.scenario.datasets import AnyDatasetSpec
from fl_testbed.scenario.flower_strategy import AnyStrategySpec, FlowerStrategySpec
from fl_testbed.scenario.initial_model import Init
from fl_testbed.scenario.local_methods import AnyLocalMethodSpec, ExampleJttSpec
from fl_testbed.scenario.models import AnyModelSpec
from fl_testbed.scenario.own_specs import own_specs
from fl_testbed.scenario.partitions import AnyPartitionSpec, ClientsSpec, IidSpec
from fl_testbed.scenario.parts import (
    AnySamplingSpec,
    EvaluationSpec,
    RecordUpdates,
    SamplingSpec,
    ServerDataSpec,
    TrainingSpec,
)
from fl_testbed.scenario.places import BESIDE_VARIANTS
from fl_testbed.scenario.poisons import AnyPoisonSpec, EdgeCaseBackdoorSpec, NoPoisonSpec
from fl_testbed.scenario.reweightings import JTTSpec, QFedAvgSpec
from fl_testbed.scenario.spec import (
    Contradiction,
    Seconds,
    Spec,
    Threads,
    WholeScenario,
    inside,
    unknown_classes,
)
from fl_testbed.scenario.strategy import StrategySpec
from fl_testbed.scenario.users_code import OwnCodeError
from strategies.aggregation import TooFewClientsError

NAME = r"^[A-Za-z0-9][A-Za-z0-9._=,-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=255)]
"""A name that a folder can have."""


def _no_file_s_name(value: str) -> str:
    if value in BESIDE_VARIANTS:
        raise ValueError(f"needs another name: {value} is a file beside the variants' folders")
    return value


Variant = Annotated[Name, AfterValidator(_no_file_s_name)]
"""A variant's name, which its folder inside the sweep's folder has too."""
OF_ONE_KIND = ("training_attack", "attack", "reported_loss", "schedule")
"""Keys that ``attackers`` gives for each kind of attackers, where there are several."""


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise ValueError(
            f"needs auto, cpu, cuda, or one GPU of several such as cuda:1, got {value}"
        )
    return value


def _ray_address(value: str) -> str:
    if value not in ("local", "auto") and not re.fullmatch(r"\S+:\d+", value):
        raise ValueError(f"needs HOST:PORT of a running cluster, auto, or local, got {value!r}")
    return value


class EngineSpec(Spec):
    """Where a run computes. It is no part of a run's identity: results do not depend on it, except
    that their last bits depend on the device, as they do on the kind of CPU."""

    kind: Literal["inline", "ray", "flower"] = "inline"  # flower: Flower's own engine
    workers: PositiveInt | Literal["auto"] = "auto"  # ray, flower: one per core by default
    parallel: Literal["auto", "clients", "runs"] = "auto"  # what is spread over Ray workers
    ray_address: Annotated[str, AfterValidator(_ray_address)] = "local"  # local, auto, or HOST:PORT
    client_timeout_s: Seconds = 600.0  # seconds a client may take, else it has failed
    device: Annotated[str, AfterValidator(_device)] = "auto"  # auto: a GPU, where there is one
    memory_limit_mib: PositiveFloat | None = None  # device memory of a process that trains
    checkpoint_every: PositiveInt = 1  # in rounds; a resumed run goes on from the last checkpoint

    @property
    def n_workers(self) -> int | None:
        """Processes asked for; None leaves it to Ray."""
        return None if self.workers == "auto" else self.workers


class Scenario(WholeScenario):
    """One run: the whole experiment in one file."""

    name: Name  # the folder of its runs
    variant: Variant = "default"  # the name of this variant
    seed: NonNegativeInt = 0  # decides all random numbers
    rounds: PositiveInt  # number of rounds, a reweighting's warm-up included
    torch_threads: Threads = 1  # CPU threads of torch; the last bits of results depend on it
    dataset: AnyDatasetSpec  # which examples there are, and who is a minority among them
    model: AnyModelSpec  # what is trained
    init: Init = None  # a trained model to start from: path of its model.safetensors
    clients: ClientsSpec
    partition: AnyPartitionSpec = IidSpec()  # how examples are dealt to clients
    sampling: AnySamplingSpec = SamplingSpec()  # which clients take part in a round
    training: TrainingSpec
    local_method: AnyLocalMethodSpec | None = None  # what every client runs, attackers too
    poison: AnyPoisonSpec = NoPoisonSpec()  # what attackers train on
    training_attack: AnyTrainingAttackSpec = NoTrainingAttackSpec()  # what they do while training
    attack: AnyAttackSpec = NoAttackSpec()  # what attackers send
    reported_loss: Claim = "honest"  # low: a tenth of an attacker's loss; high: ten times it
    schedule: ScheduleSpec = ScheduleSpec()
    attackers: list[AttackersSpec] = Field(default_factory=list)  # for several kinds at once
    server_data: ServerDataSpec = ServerDataSpec()
    strategy: AnyStrategySpec  # what the server does
    evaluation: EvaluationSpec = EvaluationSpec()
    record_updates: RecordUpdates = None  # keep what clients send: true, or {dtype: float16}
    engine: EngineSpec = EngineSpec()

    @property
    def n_sampled(self) -> int:
        """Clients per round."""
        return self.sampling.count(len(self.clients.population))

    @property
    def n_attacking(self) -> int:
        """Attackers that ever do anything that an honest client would not."""
        return sum(kind.count for kind in self.attacker_kinds if kind.ever_attacks)

    @property
    def n_told(self) -> int | None:
        """How many attackers an oracle tells the strategy of; None if it does not ask.

        As many as attack where everybody takes part, else their share of a sample, rounded down.

        Raises:
            TooFewClientsError: If that is less than one.
        """
        if not self.strategy.asks_how_many:
            return None
        drawn, of = self.n_sampled, len(self.clients.population)
        if self.sampling.attackers is not None:
            drawn, of = self.sampling.attackers, self.clients.poisoned
        total = self.n_attacking * drawn
        if 0 < total < of:
            text = f"{self.n_attacking} of {of} attack, less than one in a sample of {drawn}"
            raise TooFewClientsError(f"n_malicious: {text}: give a count in place of oracle")
        return total // max(1, of)

    @property
    def told_strategy(self) -> StrategySpec | FlowerStrategySpec:
        """The strategy, told how many clients attack where it asks."""
        told = self.n_told
        return self.strategy if told is None else self.strategy.told(told)

    @property
    def attacker_kinds(self) -> list[AttackerKind]:
        """The kinds of attackers, in the order of their client ids."""
        same = {key: getattr(self, key) for key in OF_ONE_KIND}
        listed = self.attackers or [AttackersSpec(count=self.clients.poisoned, **same)]
        left = self.clients.poisoned - sum(own.count or 0 for own in listed)
        first = len(self.clients.population) - self.clients.poisoned
        named: dict[str, AnyPoisonSpec] = {"": NoPoisonSpec()}
        kinds: list[AttackerKind] = []
        for own in listed:
            poison = own.poison or self.poison
            if poison not in named.values():
                like = sum(other.kind == poison.kind for other in named.values())
                named[f"{poison.kind}.{like + 1}" if like else poison.kind] = poison
            name = next(name for name, other in named.items() if other == poison)
            count = max(0, left) if own.count is None else own.count
            known = {"count": count, "poison": poison, "poison_name": name, "first": first}
            kinds.append(AttackerKind(**dict(own) | known))
            first += count
        return kinds

    @property
    def named_poisons(self) -> dict[str, AnyPoisonSpec]:
        """The poisons that differ, by what results call them, whether or not anybody attacks."""
        return {kind.poison_name: kind.poison for kind in self.attacker_kinds if kind.poison_name}

    def attackers_with(self, poison: str) -> list[int]:
        """Return the client ids of the attackers with a poison, by its name."""
        kinds = [kind for kind in self.attacker_kinds if kind.poison_name == poison]
        return [client for kind in kinds for client in kind.clients]

    @property
    def _restarts_after(self) -> int:
        """After how many rounds the model starts anew; 0 if it never does."""
        lift = self.strategy.reweighting
        return lift.warm_up_rounds if isinstance(lift, JTTSpec) and lift.restart else 0

    def training_in(self, round_: int) -> LocalTraining:
        """Return how honest clients train in a round; JTT's restart counts rounds from 1 again."""
        before = self._restarts_after
        return self.training.build(round_ - before if round_ > before else round_)

    @property
    def can_resume(self) -> bool:
        """Whether an unfinished run can go on after its last recorded round.

        On Flower's own engine what clients remember stays inside it, in no checkpoint.
        """
        attacks = [kind.training_attack.build() for kind in self.attacker_kinds]
        remembers = any(a and a.needs_previous for a in attacks)
        remembers |= self.local_method is not None and self.local_method.remembers
        return self.told_strategy.can_resume and not (remembers and self.engine.kind == "flower")

    @property
    def may_be_longer(self) -> bool:
        """Whether a longer run would begin with the same rows. The last round is always evaluated;
        a longer run evaluates it too only if ``evaluation.every`` says so."""
        return self.can_resume and self.rounds % self.evaluation.every == 0

    @property
    def draws_while_training(self) -> bool:
        """Whether the model is one of ours that draws random numbers while it trains; a user's own
        shows it when it trains (:class:`clients.trainer.Trainer`)."""
        return bool(getattr(self.model, "dropout", 0))

    @property
    def is_oracle(self) -> bool:
        """Whether the strategy or clients are told the truth: marked in every table."""
        told = self.local_method is not None and self.local_method.is_oracle
        return told or self.strategy.is_oracle or self.strategy.asks_how_many

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield keys that contradict each other, as (key, text)."""
        n_clients = len(self.clients.population)
        if n_clients == 0:
            yield "clients", "needs at least one client"
            return
        try:
            self._check_bounds()
        except TooFewClientsError as fault:
            yield "strategy.aggregation", str(fault)
        except OwnCodeError as fault:
            yield "strategy", str(fault)
        if self.strategy.needs_server_data and self.server_data.n_examples == 0:
            text = f"needs a number > 0: {self.strategy.rule_name} judges by the server's own data"
            yield "server_data.n_examples", text
        n_attackers = self.clients.poisoned
        of_sampling = self.sampling.contradictions(n_clients - n_attackers, n_attackers)
        yield from inside("sampling", of_sampling)
        yield from self._strategy_contradictions(n_clients)
        yield from self._local_contradictions()
        yield from self._data_contradictions()
        if self.engine.kind == "ray" and ":" in self.engine.device:
            text = f"{self.engine.device} is a single GPU, but Ray shares out all GPUs: use cuda"
            yield "engine.device", text
        if self.draws_while_training and self.training.cohort not in (1, "auto"):
            text = "needs 1 with dropout: what a client draws would depend on its cohort"
            yield "training.cohort", text
        yield from self._attacker_contradictions()
        yield from self._poison_contradictions()
        yield from self._own_code_contradictions()
        if self.dataset.n_classes is not None:
            yield from self.class_contradictions(self.dataset.n_classes)

    def _check_bounds(self, n_judged: int | None = None) -> None:
        """Raise TooFewClientsError if the strategy cannot work on a sample or n_judged of it."""
        told = self.n_told
        try:
            self.told_strategy.check(self.n_sampled, n_judged)
        except TooFewClientsError as fault:
            if told is None:
                raise
            raise TooFewClientsError(f"{fault} (the oracle says f={told})") from None

    def _strategy_contradictions(self, n_clients: int) -> Iterator[Contradiction]:
        if isinstance(self.strategy, FlowerStrategySpec):
            return  # it has no parts
        yield from inside("strategy", self.strategy.contradictions())
        lift, oracle = self.strategy.reweighting, self.strategy.oracle
        decays = (self.training.lr_decay or 1) < 1
        if isinstance(lift, QFedAvgSpec) and lift.lipschitz is None and decays:
            text = "needs a value where training.lr_decay < 1: 1 / training.lr is then not constant"
            yield "strategy.reweighting.lipschitz", text
        if self.strategy.losses == "measured" and self.server_data.n_examples == 0:
            text = "needs a number > 0: losses are measured on the server's own data"
            yield "server_data.n_examples", text
        if oracle.lifting != "standard" and lift.kind == "none":
            text = f"{oracle.lifting} corrects strategy.reweighting, but there is none: set one"
            yield "strategy.oracle.lifting", text
        if oracle.removing == "shielded" and self.n_sampled == n_clients:
            try:
                self._check_bounds(n_clients - self.clients.honest_minority)
            except TooFewClientsError as fault:
                yield "strategy.oracle.removing", f"{fault} (n is without the minority)"
        if isinstance(lift, JTTSpec):
            if (lift.n_flagged is None) == (lift.threshold is None):
                text = "needs either n_flagged (how many to flag) or threshold (from which loss on)"
                yield "strategy.reweighting", text
            if lift.n_flagged is not None and lift.n_flagged > n_clients:
                text = f"needs at most {n_clients}, the number of clients, got {lift.n_flagged}"
                yield "strategy.reweighting.n_flagged", text
            if lift.warm_up_rounds >= self.rounds:
                text = (
                    f"needs fewer than rounds = {self.rounds}, got {lift.warm_up_rounds}: "
                    "no round would be left to train with the flags"
                )
                yield "strategy.reweighting.warm_up_rounds", text

    def _local_contradictions(self) -> Iterator[Contradiction]:
        local = self.local_method
        if isinstance(local, ExampleJttSpec) and local.warm_up_rounds >= self.rounds:
            text = (
                f"needs fewer than rounds = {self.rounds}, got {local.warm_up_rounds}: no round "
                "would be left to train with the copies"
            )
            yield "local_method.warm_up_rounds", text
        restart = self._restarts_after
        if isinstance(local, ExampleJttSpec) and restart not in (0, local.warm_up_rounds):
            text = (
                f"needs {restart} as in strategy.reweighting, got {local.warm_up_rounds}: the "
                "model then starts anew, and a new one gets nearly all examples wrong"
            )
            yield "local_method.warm_up_rounds", text
        if local is not None and local.is_personal and self.engine.kind == "flower":
            text = "Flower's own engine keeps personal models where they go untested: use ray"
            yield "engine.kind", text
        twins = [kind.attack.kind for kind in self.attacker_kinds if kind.attack.needs_twin]
        if local is not None and twins:
            text = f"cannot be combined with {twins[0]}, which trains attackers a second time"
            yield "local_method", f"{text}: leave one out"

    def _attacker_contradictions(self) -> Iterator[Contradiction]:
        counts = [kind.count for kind in self.attackers]
        total, poisoned = sum(kind.count or 0 for kind in self.attackers), self.clients.poisoned
        if counts.count(None) > 1:
            yield "attackers", "needs a count in all entries but one, which gets what is left"
        elif total > poisoned or (counts and None not in counts and total < poisoned):
            wanted = "raise that or lower these" if None in counts else "make them equal"
            text = f"the counts sum to {total}, but clients.poisoned is {poisoned}: {wanted}"
            yield "attackers", text
        for key in OF_ONE_KIND:
            if self.attackers and getattr(self, key) != type(self).model_fields[key].default:
                yield (
                    key,
                    "is for a single kind of attackers: write it into each entry of attackers",
                )
        n_clients = len(self.clients.population)
        n_honest = n_clients - self.clients.poisoned
        for place, kind in enumerate(self.attacker_kinds):
            own = f"attackers.{place}." if self.attackers else ""
            for key, text in kind.contradictions(n_clients, n_honest, self.rounds):
                yield own + key, text
            if kind.attack.knows_defence and not self.strategy.can_be_foreseen:
                text = (
                    f"attackers cannot foresee what {self.strategy.rule_name} does: it asks for "
                    "more than updates and model, such as losses, server data or memory"
                )
                yield f"{own}attack", text

    def _data_contradictions(self) -> Iterator[Contradiction]:
        clients, minority, partition = self.clients, self.dataset.minority, self.partition
        if minority.kind == "none" and clients.honest_minority:
            text = f"needs 0 or a dataset.minority that is not none, got {clients.honest_minority}"
            yield "clients.honest_minority", text
        if clients.overlap and not partition.can_overlap:
            text = f"needs false: a {partition.kind} partition deals every example once"
            yield "clients.overlap", text
        needs_size = {
            "clients.overlap": clients.overlap,
            "clients.minority_mix": clients.minority_mix is not None,
            "partition.merge": getattr(partition, "merge", False),
        }
        for key, is_set in needs_size.items():
            if is_set and clients.examples_each is None:
                yield key, "needs clients.examples_each as well, the size of a shard"
        if clients.minority_mix is not None and minority.is_style:
            text = f"needs groups that are in the data, not {minority.kind} images"
            yield "clients.minority_mix", text
        if partition.by_natural_client and not minority.is_style:
            text = "has no effect on natural clients, which keep their own examples: leave it out"
            if clients.minority_concentration < 1:
                yield "clients.minority_concentration", text
            if clients.minority_mix is not None:
                yield "clients.minority_mix", text
        if self.evaluation.split == "validation" and not self.evaluation.n_validation:
            yield "evaluation.n_validation", "needs a number > 0 for the split validation"

    def _own_code_contradictions(self) -> Iterator[Contradiction]:
        files: dict[str, str | None] = {}
        codes = [own.code for own in own_specs(self) if own.code.source is not None]
        clashing = {
            c.path.name for c in codes if files.setdefault(c.path.name, c.sha256) != c.sha256
        }
        text = "is the name of two files of yours: rename one, the run's folder keeps both"
        yield from (("", f"{name} {text}") for name in sorted(clashing))

    def _poison_contradictions(self) -> Iterator[Contradiction]:
        for key, poison in self._poisons_by_key().items():
            n_attackers = sum(kind.count for kind in self.attacker_kinds if kind.poison == poison)
            found = poison.contradictions(self.clients, self.dataset.minority, n_attackers)
            yield from inside(key, found)
        rarities = {
            poison.rarity()
            for poison in self.named_poisons.values()
            if isinstance(poison, EdgeCaseBackdoorSpec)
        }
        if len(rarities) > 1:
            text = "needs the same source, held_by and held_fraction for all edge-case backdoors"
            yield "attackers", f"{text}: they say what honest clients hold"

    def _poisons_by_key(self) -> dict[str, AnyPoisonSpec]:
        by_key = {"poison": self.poison}
        for place, kind in enumerate(self.attackers):
            if kind.poison is not None:
                by_key[f"attackers.{place}.poison"] = kind.poison
        return by_key

    def class_contradictions(self, n_classes: int) -> Iterator[Contradiction]:
        """Yield keys that name a class which the dataset lacks, as (key, text)."""
        for key, poison in self._poisons_by_key().items():
            yield from inside(key, poison.unknown_classes(n_classes))
        if (bias := self.server_data.bias) is not None:
            yield from unknown_classes({"server_data.bias.label": bias.label}, n_classes)
