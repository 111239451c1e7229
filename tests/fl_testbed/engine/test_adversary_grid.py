"""The grid around the grid: who sees what, what passes, what is rewritten, what is kept."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from commands import ATTACKED, write_scenario
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from safetensors.torch import load, save

from clients.app import CLEAN_ARRAYS
from clients.attacks import FACTS, UNTOLD, Forged, Knowledge, Schedule
from fl_testbed.engine import federated
from fl_testbed.engine.adversary_grid import AdversaryGrid, Attackers, Surroundings
from fl_testbed.engine.client_work import Outcome, Task
from fl_testbed.engine.datasets import load_dataset
from fl_testbed.engine.flower_internals import become_server
from fl_testbed.engine.grid import ClientGrid
from fl_testbed.engine.memory import server_memory
from fl_testbed.scenario import Scenario, load_scenarios
from strategies.aggregation import TooFewClientsError
from strategies.flower_arrays import record_of

START = {"w": np.array([[1.0, 2.0]], np.float32), "b": np.array([3.0], np.float32)}
LAYERS = {"w": slice(0, 2), "b": slice(2, 3)}
HONEST, MINORITY, ATTACKERS = range(4), range(3, 4), range(4, 7)


def updates(client: int) -> list[float]:
    return [client + 0.1, client + 0.2, client + 0.3]


class Replies(ClientGrid):
    """Answers with given updates, in an order of its own."""

    def __init__(self, changed: dict[int, RecordDict | None], order: Callable = sorted) -> None:
        super().__init__()
        become_server()
        self.changed, self.order = changed, order

    def execute(self, content: RecordDict, tasks: list[Task]) -> Iterator[Outcome]:
        for client in self.order(task.metadata.dst_node_id for task in tasks):
            reply = self.changed.get(client, content_of(updates(client)))
            yield Outcome(client, reply, "" if reply is not None else "no battery", RecordDict())


def arrays_of(update: list[float]) -> ArrayRecord:
    values = np.array(update, dtype=np.float32)
    return record_of({"w": START["w"] + values[:2], "b": START["b"] + values[2:]})


def content_of(update: list[float], clean: list[float] | None = None) -> RecordDict:
    content = RecordDict({"arrays": arrays_of(update)})
    if clean is not None:
        content[CLEAN_ARRAYS] = arrays_of(clean)
    return content


def surroundings(**changes) -> Surroundings:
    known = {"n_assumed": lambda n: None, "rule": None, "seed": 5, **changes}
    return Surroundings(attackers=ATTACKERS, minority=MINORITY, **known)


def one_round(grid: AdversaryGrid, round_: int = 1, clients=range(7)) -> dict[int, list[float]]:
    content = RecordDict(
        {"arrays": record_of(START), "config": ConfigRecord({"server-round": round_})}
    )
    received = {}
    for reply in grid.send_and_receive([Message(content, c, "train") for c in clients]):
        client = reply.metadata.src_node_id
        assert client not in received
        if reply.has_error():
            received[client] = str(reply.error.reason)
            continue
        assert list(reply.content.array_records) == ["arrays"]
        arrays = reply.content.array_records["arrays"]
        flat = [arrays[name].numpy() - START[name] for name in ("w", "b")]
        received[client] = np.concatenate([part.ravel() for part in flat]).tolist()
    return received


def test_attackers_send_buffers_as_they_have_them():
    def flipped(own, seen):
        return Forged(-seen.mean(dim=0).expand_as(own))

    def blindly(own):
        return Forged(-own)

    for attack, knowledge in ((flipped, Knowledge.COLLUDING), (blindly, Knowledge.BLIND)):
        grid = AdversaryGrid(
            Replies({}, sorted), [kind(attack, knowledge)], surroundings(), frozenset({"w"})
        )
        plain, forged = one_round(Replies({}, sorted)), one_round(grid)
        for client in ATTACKERS:
            (*w, b), (*forged_w, forged_b) = plain[client], forged[client]
            assert forged_w == approx(w)
            assert forged_b * b < 0


def grid_of(*kinds: Attackers, changed=None, order=sorted, **around) -> AdversaryGrid:
    return AdversaryGrid(Replies(changed or {}, order), kinds, surroundings(**around))


def approx(values):
    return pytest.approx(values, abs=1e-5)


class Watcher:
    """An attack that notes what it is told, and sends a constant."""

    def __init__(self) -> None:
        self.told: list[dict] = []

    def __call__(
        self,
        own,
        *,
        seen=None,
        sample=None,
        clean=None,
        seen_clients=None,
        is_minority=None,
        n_clients,
        n_attackers,
        n_assumed,
        round_,
        received,
        layers,
        rng,
        memory=None,
    ) -> Forged:
        told = {name: value for name, value in locals().items() if name != "self"}
        self.told.append({k: v.clone() if torch.is_tensor(v) else v for k, v in told.items()})
        rounds = memory.get("rounds", torch.tensor(0)) + 1 if memory is not None else 0
        return Forged(torch.full_like(own, 9.0), {"rounds": rounds} if memory is not None else {})


def kind(attack, knowledge=Knowledge.OMNISCIENT, clients=ATTACKERS, **more) -> Attackers:
    return Attackers(clients, attack, knowledge, more.pop("schedule", Schedule()), **more)


class TestKnowledge:
    def test_the_omniscient_see_all_honest_updates_and_no_attackers(self):
        attack = Watcher()
        received = one_round(grid_of(kind(attack)))
        (told,) = attack.told
        assert told["own"].tolist() == [approx(updates(c)) for c in ATTACKERS]
        assert told["seen"].tolist() == [approx(updates(c)) for c in HONEST]
        assert told["seen_clients"].tolist() == list(HONEST)
        assert told["is_minority"].tolist() == [False, False, False, True]
        assert (told["n_clients"], told["n_attackers"], told["n_assumed"]) == (7, 3, 3)
        assert (told["round_"], told["layers"]) == (1, LAYERS)
        assert told["received"].tolist() == [1, 2, 3]
        assert received == {c: approx(updates(c)) for c in HONEST} | {
            c: approx([9.0] * 3) for c in ATTACKERS
        }

    def test_colluders_never_see_an_honest_update(self):
        attack = Watcher()
        one_round(grid_of(kind(attack, Knowledge.COLLUDING)))
        for name in ("own", "seen", "sample", "clean"):
            assert attack.told[0][name].tolist() == [approx(updates(c)) for c in ATTACKERS]
        assert attack.told[0]["is_minority"].all()  # whom they pose as

    def test_the_blind_see_their_own_update_alone(self):
        attack = Watcher()
        one_round(grid_of(kind(attack, Knowledge.BLIND)))
        assert [told["own"].tolist() for told in attack.told] == [
            [approx(updates(c))] for c in ATTACKERS
        ]
        for told in attack.told:
            assert {name for name in FACTS if told.get(name) is None} == UNTOLD
            assert told["n_attackers"] == 3
        one_round(grid_of(kind(attack, Knowledge.BLIND)), round_=2)
        draws = {float(told["rng"].random()) for told in attack.told}
        assert len(draws) == 6

    def test_kinds_side_by_side_each_know_what_is_theirs(self):
        alone, all_seeing, blind = Watcher(), Watcher(), Watcher()
        kinds = (
            kind(alone, Knowledge.COLLUDING, range(4, 5), samples_everybody=True),
            kind(all_seeing, Knowledge.OMNISCIENT, range(5, 6)),
            kind(blind, Knowledge.BLIND, range(6, 7)),
        )
        one_round(grid_of(*kinds))
        for name in ("seen", "sample"):
            assert alone.told[0][name].tolist() == [approx(updates(4))]
        assert all_seeing.told[0]["own"].tolist() == [approx(updates(5))]
        assert all_seeing.told[0]["seen"].tolist() == [approx(updates(c)) for c in HONEST]
        assert blind.told[0]["own"].tolist() == [approx(updates(6))]

    def test_everybodys_sample_counts_the_attackers_own(self):
        attack = Watcher()
        one_round(grid_of(kind(attack, samples_everybody=True)))
        assert attack.told[0]["sample"].tolist() == [approx(updates(c)) for c in range(7)]
        assert len(attack.told[0]["seen"]) == 4

    def test_what_colluders_would_send_if_honest_is_what_they_go_by(self):
        attack = Watcher()
        changed = {c: content_of(updates(c), clean=[-c, 0, 0]) for c in ATTACKERS}
        one_round(grid_of(kind(attack, Knowledge.COLLUDING), changed=changed))
        assert attack.told[0]["own"].tolist() == [approx(updates(c)) for c in ATTACKERS]
        for name in ("clean", "seen"):
            assert attack.told[0][name].tolist() == [approx([-c, 0, 0]) for c in ATTACKERS]

    def test_whose_clean_twin_cannot_be_used_takes_no_part(self):
        attack, lost = Watcher(), {4: np.nan}
        changed = {c: content_of(updates(c), clean=[-c, 0, lost.get(c, 0)]) for c in ATTACKERS}
        received = one_round(grid_of(kind(attack, Knowledge.COLLUDING), changed=changed))
        assert received[4] == approx(updates(4))
        assert attack.told[0]["clean"].tolist() == [approx([-c, 0, 0]) for c in (5, 6)]

    def test_the_rules_own_assumption_is_told_where_it_has_one(self):
        attack = Watcher()
        one_round(grid_of(kind(attack), n_assumed=lambda n: n // 3))
        assert attack.told[0]["n_assumed"] == 2

    @pytest.mark.parametrize("others_know", [Knowledge.BLIND, Knowledge.COLLUDING])
    def test_who_knows_the_defence_can_foresee_it_on_all_that_will_be_sent(self, others_know):
        seen = []

        def attack(own, defence):
            seen.append(defence(torch.tensor([0.0, 1.0, 2.0])).tolist())
            return Forged(own)

        def rule(rows, round_, received, layers, rng):
            assert (round_, layers) == (1, LAYERS)
            return rows.sum(dim=0)

        others = kind(Watcher(), others_know, range(4, 5))
        knowing = kind(attack, clients=range(5, 7))
        one_round(grid_of(others, knowing, rule=rule))
        honest = np.sum([updates(c) for c in HONEST], axis=0)
        assert seen == [approx((honest + np.array([9, 9 + 2, 9 + 4])).tolist())]

    @pytest.mark.parametrize("knowledge", [Knowledge.OMNISCIENT, Knowledge.COLLUDING])
    def test_to_foresee_it_changes_nothing_that_attackers_hold(self, knowledge):
        foreseen = []

        def attack(own, seen, defence):
            before = own.clone(), seen.clone()
            foreseen.extend(defence(update) for update in (own[0], torch.zeros(3)))
            with pytest.raises(TooFewClientsError):
                defence(torch.full((3,), -1.0))
            assert torch.equal(own, before[0])
            assert torch.equal(seen, before[1])
            return Forged(own)

        def last_row(rows, **_):
            if rows[-1, 0] < 0:
                raise TooFewClientsError
            return rows[-1]  # a view, as a selection returns one

        received = one_round(grid_of(kind(attack, knowledge), rule=last_row))
        assert received == {c: approx(updates(c)) for c in range(7)}
        assert [update.tolist() for update in foreseen] == [approx(updates(4)), [0.0] * 3]


class TestReplies:
    def test_the_order_of_arrival_changes_nothing(self):
        expected = one_round(grid_of(kind(Watcher())))
        backwards = grid_of(kind(Watcher()), order=lambda clients: sorted(clients, reverse=True))
        assert one_round(backwards) == expected

    def test_outside_their_schedule_attackers_are_left_alone(self):
        attack = Watcher()
        grid = grid_of(kind(attack, schedule=Schedule(first=2)))
        assert one_round(grid, 1) == {c: approx(updates(c)) for c in range(7)}
        assert one_round(grid, 2)[4] == approx([9.0] * 3)
        assert len(attack.told) == 1

    def test_a_round_without_attackers_is_left_alone(self):
        attack = Watcher()
        sampled = [0, 2, 3]
        expected = {c: approx(updates(c)) for c in sampled}
        assert one_round(grid_of(kind(attack)), clients=sampled) == expected
        assert not attack.told

    def test_who_is_not_sampled_is_neither_seen_nor_counted(self):
        attack = Watcher()
        received = one_round(grid_of(kind(attack)), clients=[1, 3, 5])
        assert attack.told[0]["seen"].tolist() == [approx(updates(c)) for c in (1, 3)]
        assert (attack.told[0]["n_clients"], attack.told[0]["n_attackers"]) == (3, 1)
        assert received[5] == approx([9.0] * 3)

    @pytest.mark.parametrize("knowledge", list(Knowledge))
    def test_failed_and_unusable_replies_pass_and_take_no_part(self, knowledge):
        attack = Watcher()
        odd = RecordDict({"arrays": record_of({"w": START["w"]})})
        changed = {0: None, 1: content_of([np.nan, 0, 0]), 4: None, 5: content_of([np.inf, 0, 0])}
        grid = grid_of(kind(attack, knowledge), changed=changed)
        received = one_round(grid)
        assert received[0] == received[4] == "no battery"
        assert np.isnan(received[1][0])
        assert np.isinf(received[5][0])
        assert received[6] == approx([9.0] * 3)
        assert attack.told[0]["own"].tolist() == [approx(updates(6))]
        if knowledge is Knowledge.OMNISCIENT:
            assert attack.told[0]["seen"].tolist() == [approx(updates(c)) for c in (2, 3)]
        twice = content_of(updates(6))
        twice["more"] = arrays_of(updates(6))
        config = ConfigRecord({"server-round": 1})
        content = RecordDict({"arrays": record_of(START), "config": config})
        for changed[6], names in ((odd, ["w"]), (twice, ["w", "b"])):
            (reply,) = grid.send_and_receive([Message(content, 6, "train")])
            arrays = reply.content.array_records["arrays"]
            assert list(arrays) == names
        assert np.array_equal(arrays["w"].numpy(), arrays_of(updates(6))["w"].numpy())

    def test_without_anybody_to_learn_from_attackers_send_what_they_have(self):
        attack = Watcher()
        received = one_round(grid_of(kind(attack)), clients=[4, 5])
        assert received == {4: approx(updates(4)), 5: approx(updates(5))}
        assert not attack.told

    def test_queries_evaluation_and_a_round_that_asks_nobody_pass(self):
        grid = grid_of(kind(Watcher()))
        assert not one_round(grid, clients=[])
        content = RecordDict({"arrays": record_of(START)})
        (reply,) = grid.send_and_receive([Message(content, 4, "evaluate")])
        arrays = reply.content.array_records["arrays"]
        np.testing.assert_array_equal(arrays["b"].numpy(), arrays_of(updates(4))["b"].numpy())


def test_what_attackers_keep_is_saved_with_what_clients_keep():
    def grids():
        return grid_of(kind(Watcher(), clients=range(4, 5)), kind(Watcher(), clients=range(5, 7)))

    grid = grids()
    one_round(grid)
    grid.states = {2: RecordDict({"kept": ConfigRecord({"x": 1})})}
    state = grid.state_dict()
    assert set(state) == {"2", "attack/0/rounds", "attack/1/rounds"}
    again = grids()
    again.load_state_dict(state)
    one_round(again)
    assert int(again.state_dict()["attack/1/rounds"]) == 2
    assert again.states[2].config_records["kept"]["x"] == 1


def test_updates_that_attackers_remember_are_not_what_they_sent():
    def repeating(own, memory):
        return Forged(memory.get("own", torch.zeros_like(own)), {"own": own})

    grid = grid_of(kind(repeating, Knowledge.COLLUDING))
    assert one_round(grid)[4] == approx([0.0] * 3)
    assert one_round(grid, 2)[4] == approx(updates(4))


def test_what_an_attack_does_to_the_model_that_it_is_shown_is_its_own_matter():
    def careless(own, received):
        received.zero_()
        return Forged(own)

    received = one_round(grid_of(kind(careless, Knowledge.BLIND)))
    assert received == {c: approx(updates(c)) for c in range(7)}


def test_a_resumed_run_attacks_as_if_it_had_never_stopped(tmp_path):
    scenario = load_scenarios(write_scenario(tmp_path, ATTACKED))[0]
    dataset = load_dataset(scenario, None)
    records = list(federated.records(dataset, scenario, -1, None))
    saved = load(save({k: v.contiguous() for k, v in records[2].state.items()}))
    assert any(name.startswith("client/attack/0/") for name in saved)
    resumed = list(federated.records(dataset, scenario, 2, saved))
    for before, after in zip(records[3:], resumed, strict=True):
        assert before.state.keys() == after.state.keys()
        for name in before.state:
            assert torch.equal(before.state[name], after.state[name]), name
        assert repr(before.tables["clients.csv"]) == repr(after.tables["clients.csv"])


def test_omniscient_attackers_cost_a_second_matrix_and_a_record_three(tmp_path):
    scenario = load_scenarios(write_scenario(tmp_path))[0]
    dataset = load_dataset(scenario, None)
    d, without = server_memory(scenario, dataset)
    for attack, rows in (
        ({"kind": "sign_flip"}, 0),
        ({"kind": "alie", "knowledge": "colluding"}, 2),
        ({"kind": "alie"}, 12),
        ({"kind": "minority_mimic"}, 14),
        ({"kind": "minority_mimic", "knowledge": "colluding"}, 4),
    ):
        attacked = Scenario.model_validate({**scenario.model_dump(), "attack": attack})
        assert server_memory(attacked, dataset) == (d, without + 4 * d * rows)
    recorded = Scenario.model_validate({**scenario.model_dump(), "record_updates": True})
    assert server_memory(recorded, dataset) == (d, without + 4 * d * 3 * 12)
