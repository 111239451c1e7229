"""Attackers in scenarios: what can be named, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from clients.attacks import FACTS, UNTOLD, Knowledge, ProjectedDescent
from clients.training import LocalTraining
from fl_testbed.scenario import ScenarioError
from fl_testbed.scenario.attacks import (
    AttackersSpec,
    AttackerTrainingSpec,
    OwnTrainingAttackSpec,
    PgdSpec,
)
from fl_testbed.scenario.catalogue import CATALOGUE
from fl_testbed.scenario.users_code import OwnCodeError
from strategies.pipeline import asked_facts
from strategies.randomness import Purpose, generator

NEEDED = {"scale": 1.0}


@pytest.fixture
def faults_of(load):
    def faults_of(more: str, *settings: str) -> list[str]:
        with pytest.raises(ScenarioError) as error:
            load(more, *settings)
        return [f"{fault.key}: {fault.text}" for fault in error.value.faults]

    return faults_of


@pytest.mark.parametrize(
    ("given", "every"), [({}, 1), ({"every": 10}, 10), ({"every": "never"}, None)]
)
def test_pgd_projects_after_every_so_many_steps_or_the_last_alone(given, every):
    spec = PgdSpec(kind="pgd", radius=2.0, relative=True, **given)
    assert spec.build() == ProjectedDescent(radius=2.0, every=every, relative=True)


@pytest.mark.parametrize("knowledge", ["omniscient", "colluding"])
@pytest.mark.parametrize("kind", [kind for kind in CATALOGUE["attacks"] if kind != "none"])
def test_every_attack_that_can_be_named_runs(kind, knowledge):
    fields = CATALOGUE["attacks"][kind].model_fields
    given = {name: NEEDED[name] for name, f in fields.items() if name != "kind" and f.is_required()}
    if "knowledge" in fields:
        allowed = fields["knowledge"].annotation.__args__
        given["knowledge"] = knowledge if knowledge in allowed else allowed[0]
    spec = AttackersSpec.model_validate({"count": 3, "attack": {"kind": kind, **given}}).attack
    attack = spec.build()
    asked = asked_facts(attack, FACTS, skip=1)
    own, seen = torch.randn(3, 5), torch.randn(8, 5)
    seen = own if spec.seen is Knowledge.COLLUDING else seen
    known = {
        "seen": seen,
        "sample": seen,
        "clean": own - 1,
        "seen_clients": torch.arange(len(seen)),
        "is_minority": torch.arange(len(seen)) > 0,
        "n_clients": 11,
        "n_attackers": 3,
        "n_assumed": 2,
        "received": torch.zeros(5),
        "defence": lambda update: update,
        "memory": {},
        "rng": generator(0, Purpose.ATTACK),
    }
    assert attack(own, **{name: known[name] for name in asked}).updates.shape == (3, 5)
    blind = spec.seen is Knowledge.BLIND
    shared = {"seen", "sample", "clean", "is_minority", "defence", "memory"}
    assert blind == (not asked & shared)


def test_one_kind_of_attackers_is_written_in_short(load):
    (kind,) = load("attack: {kind: sign_flip}\nschedule: {every: 2}\n").attacker_kinds
    assert kind.clients == range(12, 16)
    assert (kind.count, kind.attack.kind, kind.schedule.every) == (4, "sign_flip", 2)


def test_several_kinds_share_out_the_attackers_in_order(load):
    scenario = load(
        """\
poison: {kind: dirty_label_backdoor, trigger: {kind: patch, size: 2}, target: 3}
attackers:
  - {count: 1, attack: {kind: sign_flip}, poison: {kind: none}}
  - {attack: {kind: alie, z: 1.5}, training: {lr: 0.01}}  # all others
"""
    )
    flips, hides = scenario.attacker_kinds
    assert (flips.clients, hides.clients) == (range(12, 13), range(13, 16))
    assert (flips.poison.kind, hides.poison.kind) == ("none", "dirty_label_backdoor")
    honest = scenario.training.build()
    assert flips.training.build(honest) == honest
    assert hides.training.build(honest).lr == 0.01
    assert hides.training.build(honest).batch_size == 5


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (
            "attack: {kind: alei}\n",
            "attack.kind: unknown kind 'alei', did you mean 'alie'?",
        ),
        (
            "attack: {kind: fang_krum, knowledge: blind}\n",
            "attack.knowledge: needs 'omniscient' or 'colluding', got 'blind'",
        ),
        (
            "attack: {kind: inner_product}\n",
            "attack.scale: is missing and has no default",
        ),
        (
            "attackers:\n  - {count: 1, attack: {kind: alie, zz: 1}}\n  - {count: 3}\n",
            "attackers.0.attack.zz: unknown key, did you mean 'z'?",
        ),
        (
            "attackers:\n  - {count: 1}\n  - {count: 2}\n",
            "attackers: the counts sum to 3, but clients.poisoned is 4: make them equal",
        ),
        (
            "attackers:\n  - {count: 1}\n  - {}\n  - {}\n",
            "attackers: needs a count in all entries but one, which gets what is left",
        ),
        (
            "attackers:\n  - {count: 3}\n  - {count: 2}\n",
            "attackers: the counts sum to 5, but clients.poisoned is 4: make them equal",
        ),
        (
            "attack: {kind: sign_flip}\nattackers: [{count: 4}]\n",
            "attack: is for a single kind of attackers: write it into each entry of attackers",
        ),
        (
            "attack: {kind: minority_mimic}\n",
            "attack: minority_mimic hides a poison, and there is none: set poison",
        ),
        (
            "attackers: [{count: 1, attack: {kind: min_max, knowledge: colluding}}, {count: 3}]\n",
            "attackers.0.attack.knowledge: min_max needs at least 2 colluding attackers, who learn "
            "from each other how updates differ, got 1: raise their count or set omniscient",
        ),
        (
            "attack: {kind: mimic, client: 12}\n",
            "attack.client: needs an honest client, from 0 to 11, got 12",
        ),
        (
            "schedule: {first: 7}\n",
            "schedule.first: needs at most 6, got 7: attackers would never attack",
        ),
        (
            "attack: {kind: fang_krum, knowledge: colluding, around: first_reply}\n",
            "attack.around: first_reply uses an honest client's model: set attack.knowledge to "
            "omniscient",
        ),
        (
            "attack: {kind: fang_trimmed_mean, knowledge: colluding, stretch: 3}\n",
            "attack.stretch: is only for omniscient attackers: leave it out",
        ),
        (
            "attack: {kind: min_max, knowledge: colluding, include_own: true}\n",
            "attack.include_own: is only for omniscient attackers: leave it out",
        ),
    ],
)
def test_attackers_that_cannot_be_are_refused(faults_of, more, fault):
    assert faults_of(more) == [fault]


def test_a_rule_that_looks_at_more_than_updates_cannot_be_foreseen(load, faults_of):
    tailored, data = "attack: {kind: tailored}\n", "server_data.n_examples=10"
    assert load(tailored, "strategy.aggregation={kind: coordinate_median}")
    assert faults_of(tailored, "strategy.aggregation={kind: fltrust}", data) == [
        "attack: attackers cannot foresee what fltrust does: it asks for more than updates and "
        "model, such as losses, server data or memory"
    ]


def test_a_rule_of_ones_own_is_foreseen_by_layer_but_not_by_confidence(tmp_path, load, faults_of):
    code, tailored = tmp_path / "mine.py", "attack: {kind: tailored}\n"
    code.write_text(
        "def by_layer(updates, layers, round_): ...\ndef sure(updates, confidences): ..."
    )
    assert load(tailored, f"strategy.aggregation={{kind: '{code}:by_layer'}}")
    (fault,) = faults_of(tailored, f"strategy.aggregation={{kind: '{code}:sure'}}")
    assert fault.startswith("attack: attackers cannot foresee what mine.py:sure does")


def test_mimic_needs_somebody_to_copy(faults_of):
    nobody = ("clients.honest_majority=0", "clients.honest_minority=0")
    fault = "attack.client: needs an honest client, got none"
    assert faults_of("attack: {kind: mimic}\n", *nobody) == [fault]


def test_alie_asks_for_z_where_attackers_are_no_minority(load, faults_of):
    half = "clients.honest_majority=1"
    assert faults_of("attack: {kind: alie}\n", half) == [
        "attack.z: is derived where less than half attack, got 4 of 8 clients: give a number, or "
        "lower the count"
    ]
    assert load("attack: {kind: alie, z: 1.5}\n", half)
    assert load("attack: {kind: alie, z: cdf}\n", half)


@pytest.mark.parametrize("fact", sorted(FACTS))
def test_an_attack_of_ones_own_that_names_what_it_is_not_told_is_refused(
    fact, load, faults_of, tmp_path
):
    code = f"def needs(own, {fact}): ...\ndef takes(own, {fact}=None): ...\n"
    (tmp_path / "mine.py").write_text(code)
    for knowledge in Knowledge:
        poison = "poison: {kind: dirty_label_backdoor, trigger: {kind: patch, size: 2}, target: 3}"
        kind = f"{poison}\nattack: {{kind: 'mine.py:NAME', knowledge: {knowledge.value}}}\n"
        takes = load(kind.replace("NAME", "takes")).attack
        is_told = knowledge is not Knowledge.BLIND or fact not in UNTOLD
        assert takes.knows_defence == (is_told and fact == "defence")
        assert takes.needs_twin == (is_told and fact == "clean")
        if is_told:
            assert load(kind.replace("NAME", "needs"))
            continue
        assert faults_of(kind.replace("NAME", "needs")) == [
            f"attack: {tmp_path / 'mine.py'}:1: needs needs '{fact}', which blind attackers are "
            "not told: set knowledge to omniscient or colluding"
        ]


def test_attackers_own_epochs_take_the_place_of_honest_clients_steps():
    honest = LocalTraining(lr=0.1, batch_size=5, local_steps=1)
    lengths = [
        AttackerTrainingSpec(**own).build(honest) for own in ({}, {"local_epochs": 6}, {"lr": 1.0})
    ]
    assert [length.local_steps for length in lengths] == [1, None, 1]
    assert lengths[1].local_epochs == 6


@pytest.mark.parametrize("schedule", ["first: 6", "first: 3, last: 3", "first: 6, last: 9"])
def test_a_single_round_is_enough_to_attack_in(load, schedule):
    schedule = load(f"schedule: {{{schedule}}}\n").schedule.build()
    assert sum(schedule.is_active(round_) for round_ in range(1, 7)) == 1


@pytest.mark.parametrize("kind", ["alie", "min_max"])
def test_attackers_count_themselves_only_where_they_are_told_to(load, kind):
    assert not load(f"attack: {{kind: {kind}}}\n").attack.samples_everybody
    assert load(f"attack: {{kind: {kind}, include_own: true}}\n").attack.samples_everybody


def own_training_attack(folder: Path, body: str) -> Any:
    code = f"def act(parameters, received, previous, step, is_last, scratch):\n    {body}\n"
    (folder / "mine.py").write_text(code)
    return OwnTrainingAttackSpec(kind=f"{folder / 'mine.py'}:act").build()


def test_a_training_attack_of_ones_own_acts_after_each_step_and_on_nobody_else(tmp_path):
    body = "scratch[step] = received['a'].sub_(1); parameters['a'].add_(10 ** len(scratch))"
    attack = own_training_attack(tmp_path, body)
    assert attack.needs_previous
    received, own = {"a": torch.zeros(2)}, torch.ones(2)
    for _ in range(2):  # a training begins with nothing in scratch
        hook = attack.hook(received, None, dict)
        for step in (1, 2):
            hook({"a": own}, step, step == 2)
    assert own.tolist() == [221, 221]
    assert received["a"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("return {}", "act must change the parameters in place and return nothing, returned dict"),
        ("parameters['a'] = received['a']", "act raised TypeError: 'mappingproxy' object does"),
    ],
)
def test_what_a_training_attack_would_change_for_nobody_is_refused(tmp_path, body, fault):
    hook = own_training_attack(tmp_path, body).hook({"a": torch.zeros(2)}, None, dict)
    with pytest.raises(OwnCodeError, match=fault):
        hook({"a": torch.ones(2)}, 1, True)
