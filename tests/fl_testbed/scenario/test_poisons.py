"""Poisons in scenarios: what can be named, and what is refused."""

import numpy as np
import pytest

from fl_testbed.scenario import ScenarioError

PATCH = "trigger: {kind: patch, size: 2}"
EDGE = "kind: edge_case_backdoor, source: 1, target: 0"


@pytest.mark.parametrize(
    ("poison", "setting", "fault"),
    [
        ("kind: dirty_label", "", "poison.kind: unknown kind 'dirty_label', did you mean"),
        (
            f"kind: dirty_label_backdoor, {PATCH}, source: 3, target: 3",
            "",
            "poison.source: needs another class than the target, got 3 for both",
        ),
        (
            f"kind: dirty_label_backdoor, {PATCH}, source: 11, target: 10",
            "",
            "poison.source: needs a class from 0 to 9, got 11; "
            "poison.target: needs a class from 0 to 9, got 10",
        ),
        (
            "kind: label_flip, relabel: {kind: pairwise, source: 4, target: 4}",
            "",
            "poison.relabel.source: needs another class than the target, got 4 for both",
        ),
        (
            "kind: label_flip, relabel: {kind: pairwise, source: 4, target: 12}",
            "",
            "poison.relabel.target: needs a class from 0 to 9, got 12",
        ),
        (
            "kind: subpopulation, target: 10",
            "",
            "poison.target: needs a class from 0 to 9, got 10",
        ),
        (
            f"kind: distributed_backdoor, {PATCH}, target: 0, n_pieces: 6",
            "",
            "poison.n_pieces: needs an attacker for each piece, got 6 pieces for 4 attackers: "
            "lower it or add attackers",
        ),
        (
            EDGE,
            "clients.honest_minority=0",
            "poison.held_by: is minority, but clients.honest_minority is 0: set nobody, or add "
            "such clients",
        ),
        (
            EDGE,
            "clients.poisoned_hold=minority",
            "poison.kind: edge_case_backdoor turns the majority's examples into rare ones: it "
            "needs clients.poisoned_hold: majority and clients.minority_concentration: 1",
        ),
        (
            EDGE,
            "dataset={kind: digits, minority: {kind: attributes, by: [label], groups: ['3']}}",
            "poison.kind: edge_case_backdoor restyles examples as the minority's: it needs "
            "dataset.minority inverted, rotated or faded (where groups are in the data, choose "
            "label_flip with clients.poisoned_hold: minority)",
        ),
        (
            "kind: clean_label_backdoor, trigger: {kind: checks, corners: []}, target: 1",
            "",
            "poison.trigger.corners: ",
        ),
    ],
)
def test_a_poison_that_cannot_be_is_refused(load, poison, setting, fault):
    with pytest.raises(ScenarioError) as error:
        load(f"poison: {{{poison}}}\n", *([setting] if setting else []))
    told = "; ".join(f"{found.key}: {found.text}" for found in error.value.faults)
    assert told.startswith(fault)


def test_as_many_pieces_as_attackers_are_enough(load):
    assert load(f"poison: {{kind: distributed_backdoor, {PATCH}, target: 0, n_pieces: 4}}\n")


def test_the_poison_of_one_kind_of_attackers_is_checked_where_it_stands(load):
    with pytest.raises(ScenarioError) as error:
        load(
            f"attackers:\n  - {{count: 1}}\n  - {{count: 3, poison: "
            f"{{kind: distributed_backdoor, {PATCH}, source: 2, target: 2}}}}\n"
        )
    assert [f"{fault.key}: {fault.text}" for fault in error.value.faults] == [
        "attackers.1.poison.source: needs another class than the target, got 2 for both",
        "attackers.1.poison.n_pieces: needs an attacker for each piece, got 4 pieces for 3 "
        "attackers: lower it or add attackers",
    ]


def test_honest_clients_cannot_hold_two_edge_cases(load):
    kinds = [f"{{count: 2, poison: {{{EDGE}, held_by: {who}}}}}" for who in ("nobody", "minority")]
    with pytest.raises(ScenarioError, match="needs the same source, held_by"):
        load(f"attackers: [{', '.join(kinds)}]\n")


def test_poisons_that_differ_have_names_that_differ(load):
    backdoors = [f"{{kind: dirty_label_backdoor, {PATCH}, target: {t}}}" for t in (0, 1)]
    kinds = [*backdoors, backdoors[0], "{kind: none}"]
    counted = ", ".join(f"{{count: 1, poison: {poison}}}" for poison in kinds)
    scenario = load(f"attackers: [{counted}]\n")
    first = len(scenario.clients.population) - 4
    named = {name: scenario.attackers_with(name) for name in scenario.named_poisons}
    assert named == {
        "dirty_label_backdoor": [first, first + 2],
        "dirty_label_backdoor.2": [first + 1],
    }


def test_a_poison_is_measured_where_nobody_attacks(load):
    flip = "poison: {kind: label_flip}\n"
    assert list(load(flip, "clients.poisoned=0").named_poisons) == ["label_flip"]
    never = load(flip + "schedule: {first: never}\n")
    (kind,) = never.attacker_kinds
    assert not any(kind.schedule.build().is_active(round_) for round_ in range(1, 7))


def test_labels_that_may_only_be_read_are_searched_without_a_warning(load):
    # pandas and Ray hand out such arrays, and torch warns of them
    labels = np.array([0, 1, 2, 1])
    labels.flags.writeable = False
    poison = load(f"poison: {{kind: dirty_label_backdoor, {PATCH}, source: 1, target: 0}}\n").poison
    chosen, _ = poison.wanted(labels)
    assert chosen.tolist() == [False, True, False, True]
