"""Who takes part in a round: drawn, drawn with so many attackers, or selected by a function."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import SCENARIO

from clients.shard import Role
from fl_testbed.engine import federated
from fl_testbed.engine.assembly import build_federation
from fl_testbed.engine.datasets import load_dataset
from fl_testbed.engine.rounds import COLUMNS
from fl_testbed.engine.run_folder import Record, State
from fl_testbed.engine.sampling import Sampler
from fl_testbed.scenario import Scenario, ScenarioError, load_scenarios
from fl_testbed.scenario.users_code import OwnCodeError
from strategies.ledger import ClientEntry, RoundLedger

SELECTION = """
import numpy as np


def select(n, clients, round_, rng, n_examples, losses, weights):
    {body}
"""
LOUDEST = "return clients[np.argsort(-np.nan_to_num(losses, nan=rng.random() + round_))[:n]]"
OWN = "sampling: {kind: 'mine.py:select', fraction: 0.5}\n"


def load(folder: Path, more: str = OWN, body: str = LOUDEST, dropout: float = 0) -> Scenario:
    (folder / "mine.py").write_text(SELECTION.format(body=body))
    path = folder / "s.yaml"
    path.write_text(SCENARIO + more)  # clients 0 to 9 are honest, 10 and 11 attack
    return load_scenarios(path, [f"clients.dropout={dropout}"])[0]


def test_a_role_may_lose_more_replies_than_others(tmp_path):
    (tmp_path / "s.yaml").write_text(SCENARIO)
    keys = ["clients.dropout=0.01", "clients.dropout_of={poisoned: 0.99, honest_minority: 0}"]
    (scenario,) = load_scenarios(tmp_path / "s.yaml", keys)
    population = scenario.clients.population
    lost = [sampler(scenario).dropouts(round_) for round_ in range(1, 41)]
    share = {
        role: np.mean([len(set(population.clients(role)) & there) for there in lost])
        / max(1, len(population.clients(role)))
        for role in Role
    }
    assert share[Role.POISONED] > 0.9
    assert 0 < share[Role.HONEST_MAJORITY] < 0.1
    assert share[Role.HONEST_MINORITY] == 0
    (scenario,) = load_scenarios(tmp_path / "s.yaml", ["clients.dropout_of={poisoned: 0.99}"])
    assert sampler(scenario).dropouts(1) == {10, 11}  # and of the others nobody


def sampler(scenario: Scenario) -> Sampler:
    return Sampler(scenario, build_federation(scenario, load_dataset(scenario, None)))


def records(scenario: Scenario, done: int = -1, state: State | None = None) -> list[Record]:
    return list(federated.records(load_dataset(scenario, None), scenario, done, state))


def column(name: str, made: list[Record]) -> list[Any]:
    place = COLUMNS["clients.csv"].index(name)
    return [row[place] for record in made for row in record.tables["clients.csv"]]


def test_every_sample_has_so_many_attackers(tmp_path):
    drawn = sampler(load(tmp_path, "sampling: {fraction: 0.5, attackers: 2}\n"))
    samples = [drawn.sample(round_) for round_ in range(1, 30)]
    assert all(own == sorted(set(own)) and len(own) == 6 for own in samples)
    assert {sum(client >= 10 for client in own) for own in samples} == {2}
    assert {client for own in samples for client in own} == set(range(12))
    plain = sampler(load(tmp_path, "sampling: {fraction: 0.5}\n")).sample(1)
    assert plain == sorted(set(plain))


@pytest.mark.parametrize(
    ("sampling", "fault"),
    [
        (
            "{fraction: 0.5, attackers: 3}",
            "needs from 0 to 2 for a sample of 6 from 10 honest clients",
        ),
        (
            "{fraction: 0.1, attackers: 2}",
            "needs from 0 to 1 for a sample of 1 from 10 honest clients",
        ),
        (
            "{attackers: 1}",
            "needs from 2 to 2 for a sample of 12 from 10 honest clients and 2 attackers",
        ),
        ("{kind: 'mine.py:select', attackers: 1}", "is for random samples, but mine.py:select"),
    ],
)
def test_attackers_that_no_sample_can_have_are_refused(tmp_path, sampling, fault):
    with pytest.raises(ScenarioError, match=re.escape(f"sampling.attackers: {fault}")):
        load(tmp_path, f"sampling: {sampling}\n")


def test_a_selection_of_ones_own_knows_the_last_loss_and_weight_of_each_client(tmp_path):
    body = "select.told = n, list(n_examples), losses.tolist(), weights.tolist(); return [11, 0]"
    scenario = load(tmp_path, body=body)
    drawn = sampler(scenario)
    drawn.note(RoundLedger(1, [ClientEntry(0, weight=0.5, train_loss=9.0, believed_loss=2.0)]))
    drawn.note(RoundLedger(2, [ClientEntry(0, "failed: no reply"), ClientEntry(1, train_loss=3.0)]))
    assert drawn.sample(3) == [0, 11]
    n, sizes, losses, weights = scenario.sampling.code.function.told  # pyright: ignore
    assert (n, sizes, losses[:2], weights[0]) == (6, [40] * 12, [2.0, 3.0], 0.5)
    assert all(map(math.isnan, losses[2:] + weights[1:]))


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        ("clients[:0]", "[]"),
        ("clients[-1]", "np.int64(11)"),
        ("[*clients, 12]", "[np.int64(0), "),
        ("[3, 3]", "[3, 3]"),
        ("[-1]", "[-1]"),
        ("n_examples < 3", "[False, "),
        ("losses[:2]", "[nan, nan]"),
    ],
)
def test_what_is_no_sample_is_told_with_the_users_line(tmp_path, returned, shown):
    fault = "must return a list or array of client ids from 0 to 11, none twice, returned "
    with pytest.raises(OwnCodeError, match=re.escape(f"mine.py:5: select {fault}{shown}")):
        sampler(load(tmp_path, body=f"return {returned}")).sample(1)


def test_a_run_that_goes_on_selects_and_loses_the_clients_of_a_whole_one(tmp_path):
    scenario = load(tmp_path, dropout=0.3)
    whole = records(scenario)
    rest = records(scenario, 2, whole[2].state)
    assert [r.tables["clients.csv"] for r in rest] == [r.tables["clients.csv"] for r in whole[3:]]
    assert len(set(column("client", whole))) > 6  # it went by losses


def test_dropouts_do_not_train_and_are_no_surprise(tmp_path):
    more = "attack: {kind: sign_flip}\nlocal_method: {kind: ditto}\n"
    made = records(load(tmp_path, more, dropout=0.4))
    lost = [status == "failed: dropped out" for status in column("status", made)]
    roles = {role for role, is_lost in zip(column("role", made), lost, strict=True) if is_lost}
    assert {"honest_majority", "poisoned"} <= roles
    assert 0.2 < sum(lost) / len(lost) < 0.6
    assert [math.isnan(loss) for loss in column("train_loss", made)] == lost
    assert len(made[1].tables["personal.csv"]) == 12 - sum(lost[:12])
    assert not [note for record in made for note in record.notes if "rejected or failed" in note]
