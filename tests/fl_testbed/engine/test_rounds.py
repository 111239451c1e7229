"""What a run notes of its rounds, how models are judged, and what a summary makes of the tables."""

import gc
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import ArrayRecord, RecordDict

from clients.app import ShardClientApp
from fl_testbed.data import Federation
from fl_testbed.engine import federated
from fl_testbed.engine.assembly import build_federation
from fl_testbed.engine.datasets import load_dataset
from fl_testbed.engine.environment import data_of
from fl_testbed.engine.errors import NobodyHeardError
from fl_testbed.engine.evaluation import Evaluator
from fl_testbed.engine.memory import server_memory
from fl_testbed.engine.models import build_model
from fl_testbed.engine.rounds import COLUMNS
from fl_testbed.engine.run_folder import RunFolder
from fl_testbed.engine.summary import described, summarise
from fl_testbed.scenario import Scenario

MAJORITY, MINORITY, POISONED = "honest_majority", "honest_minority", "poisoned"
PATCH = {"kind": "patch", "size": 2}


def scenario(**keys) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "small",
            "rounds": 3,
            "dataset": {"kind": "digits"},
            "model": {"kind": "mlp", "hidden": [4]},
            "clients": {
                "honest_majority": 6,
                "honest_minority": 2,
                "poisoned": 2,
                "examples_each": 20,
            },
            "training": {"lr": 0.1, "batch_size": 10},
            "poison": {"kind": "dirty_label_backdoor", "trigger": PATCH, "target": 3},
            "strategy": {"aggregation": {"kind": "multi_krum", "n_malicious": 2}},
        }
        | keys
    )


def client_tables(made: Scenario) -> pd.DataFrame:
    records = federated.records(load_dataset(made, None), made, -1, None)
    rows = [row for record in records for row in record.tables["clients.csv"]]
    return pd.DataFrame(rows, columns=list(COLUMNS["clients.csv"]))


class TestRun:
    def test_groups_and_classes_of_which_nothing_is_tested_are_named(self, tmp_path):
        rows = [(i % n, place, split) for split, n in (("train", 3), ("test", 2)) for i in range(40)
                for place in ("town", "farm")[: 1 + (i < 10 and split == "train")]]  # fmt: skip
        lines = [",".join(map(str, row)) for row in [("ill", "place", "split"), *rows]]
        (tmp_path / "people.csv").write_text("\n".join(lines))
        minority = {"kind": "attributes", "by": ["place"]}
        columns = {"label": "ill", "attributes": ["place"], "split": "split"}
        dataset = {"kind": "csv", "file": "people.csv", "minority": minority, **columns}
        clients = {"honest_majority": 6, "honest_minority": 2, "poisoned": 1, "examples_each": 5}
        made = scenario(dataset=dataset, clients=clients, poison={"kind": "none"}, rounds=1)
        data = load_dataset(made, tmp_path)
        assert "seed" not in data_of(made, data)["of"]  # it draws no test set: they are all seeds'
        first, second = federated.records(data, made, -1, None)
        assert [note for note in first.notes if "no test example" in note] == [
            "no test example of farm (minority), class 2: "
            "worst group and accuracy are of the other groups"
        ]
        assert not second.notes

    def test_each_round_draws_clients_of_its_own_and_none_twice(self):
        strategy = {"aggregation": {"kind": "mean"}}
        clients = client_tables(scenario(sampling={"fraction": 0.5}, strategy=strategy))
        sampled = [tuple(own) for _, own in clients.groupby("round")["client"]]
        assert [len(set(own)) for own in sampled] == [5, 5, 5]
        assert len(set(sampled)) > 1

    def test_who_is_not_sampled_keeps_what_it_has(self):
        keys = {"sampling": {"fraction": 0.5}, "local_method": {"kind": "ditto"}}
        made = scenario(**keys, strategy={"aggregation": {"kind": "mean"}})
        seen: set[int] = set()
        for record in federated.records(load_dataset(made, None), made, -1, None):
            seen |= {row[1] for row in record.tables["clients.csv"]}
            assert [row[1] for row in record.tables["personal.csv"]] == sorted(seen)
        assert len(seen) > 5

    def test_nothing_that_a_run_held_waits_for_python_to_look_for_garbage(self):
        made = scenario(local_method={"kind": "ditto"}, attack={"kind": "alie"}, rounds=2)
        data = load_dataset(made, None)
        gc.freeze()
        gc.disable()
        try:
            for _ in federated.records(data, made, -1, None):
                pass
            left = {type(thing) for thing in gc.get_objects()}
        finally:
            gc.enable()
            gc.unfreeze()
        large = (ShardClientApp, Federation, RecordDict, ArrayRecord)
        assert not [kind for kind in left if issubclass(kind, large)]

    def test_a_mean_that_keeps_no_updates_needs_less_memory_and_knows_no_contributions(self):
        strategy = {"aggregation": {"kind": "mean"}}
        kept = scenario(rounds=1, strategy=strategy)
        summed = scenario(rounds=1, strategy=strategy | {"keep_mib": 0})
        dataset = load_dataset(kept, None)
        assert server_memory(summed, dataset) < server_memory(kept, dataset)
        before, after = client_tables(kept), client_tables(summed)
        assert before["contribution"].notna().all()
        assert after["contribution"].isna().all()
        assert before["weight"].tolist() == after["weight"].tolist()

    def test_a_model_with_buffers_keeps_its_updates_whatever_memory_they_take(self, monkeypatch):
        monkeypatch.setattr("fl_testbed.engine.memory.buffers_of", lambda *_: {"running_mean"})
        made = scenario(strategy={"aggregation": {"kind": "mean"}, "keep_mib": 0})
        d, needed = server_memory(made, load_dataset(made, None))
        assert needed >= 4 * d * 10

    def test_clients_weigh_by_what_they_hold_where_the_scenario_says_so(self):
        strategy = {"aggregation": {"kind": "mean"}, "weight_by": "examples"}
        made = scenario(rounds=1, strategy=strategy, partition={"kind": "quantity", "alpha": 1.0})
        clients = client_tables(made)
        partition = build_federation(made, load_dataset(made, None)).partition
        sizes = np.array([partition.size(client) for client in range(10)])
        assert len(set(sizes)) > 1
        assert clients["n_examples"].tolist() == sizes.tolist()
        for column in ("prior_weight", "weight"):
            assert clients[column].tolist() == pytest.approx((sizes / sizes.sum()).tolist())

    def test_a_restart_is_noted_where_the_model_is_the_first_one_again(self):
        lift = {"kind": "jtt", "n_flagged": 2, "factor": 5, "warm_up_rounds": 2}
        made = scenario(strategy={"aggregation": {"kind": "mean"}, "reweighting": lift})
        records = list(federated.records(load_dataset(made, None), made, -1, None))
        place = COLUMNS["rounds.csv"].index("restarted")
        assert [r.tables["rounds.csv"][0][place] for r in records] == [0, 0, 1, 0]
        (name, *_) = (name for name in records[0].state if name.startswith("arrays/"))
        parameters = [record.state[name] for record in records]
        assert [torch.equal(parameters[0], own) for own in parameters] == [True, False, True, False]

    def test_replies_of_no_use_are_counted_and_complained_of_once(self):
        made = scenario(engine={"client_timeout_s": 1e-6})
        records = list(federated.records(load_dataset(made, None), made, -1, None))
        places = [COLUMNS["rounds.csv"].index(name) for name in ("n_usable", "n_unusable")]
        counts = [[r.tables["rounds.csv"][0][place] for place in places] for r in records]
        assert counts == [[0, 0], [0, 10], [0, 10], [0, 10]]
        complaints = [[note for note in r.notes if "rejected" in note] for r in records]
        assert [len(own) for own in complaints] == [0, 1, 0, 0]
        told = (
            "default seed 0, round 1: 10 of 10 replies were rejected or failed, client 0 failed: no"
        )
        assert complaints[1][0].startswith(told)

    def test_the_last_round_is_evaluated_whatever_the_interval(self):
        made = scenario(evaluation={"every": 2})
        records = list(federated.records(load_dataset(made, None), made, -1, None))
        assert [r.round_ for r in records if r.evaluation is not None] == [0, 2, 3]
        for table in ("groups.csv", "accuracies.csv"):
            assert [bool(r.tables[table]) for r in records] == [True, False, True, True]


class TestEvaluation:
    def test_clients_are_judged_by_group_and_class_and_attacks_on_the_majority(self):
        made = scenario(evaluation={"n_clients": 4})
        federation = build_federation(made, load_dataset(made, None))
        model = build_model(made, federation.dataset)
        evaluate, arrays = Evaluator(made, federation), ArrayRecord(model.state_dict())
        found = evaluate(arrays)
        test = federation.test_set(None)
        with torch.no_grad():
            called = model(test.inputs).argmax(dim=1)
        assert found.groups.n_examples == (400, 400)
        kinds = {"group": test.groups, "label": test.labels, "right": called == test.labels}
        tested = pd.DataFrame({k: v.numpy() for k, v in kinds.items()})
        right = tested.groupby(["group", "label"])["right"].mean()
        accuracies = []
        for client in (0, 2, 4, 6):  # of the eight honest ones, evenly
            shard = federation.shard(client)
            held = zip(shard.groups.tolist(), shard.labels.tolist(), strict=True)
            accuracies.append(np.mean([right[kind] for kind in held]))
        assert found.by_client == pytest.approx(dict(zip((0, 2, 4, 6), accuracies, strict=True)))
        assert found.figures[-2:] == pytest.approx((np.var(accuracies), min(accuracies)))
        shown = (test.groups == 0) & (test.labels != 3)
        stamped = test.inputs[shown].clone()
        stamped[:, :, -2:, -2:] = 1
        with torch.no_grad():
            rate = (model(stamped).argmax(dim=1) == 3).double().mean().item()
        assert found.attacks["dirty_label_backdoor"].n_examples == int(shown.sum())
        assert found.attack_success_rate == pytest.approx(rate)
        assert evaluate.of_client(2, arrays) == pytest.approx((accuracies[1], rate))

    def test_a_model_without_numbers_calls_nothing_the_target(self):
        goal = {"kind": "dirty_label_backdoor", "trigger": {"kind": "patch", "size": 2}}
        made = scenario(poison={**goal, "target": 0})  # argmax takes the first NaN
        federation = build_federation(made, load_dataset(made, None))
        state = build_model(made, federation.dataset).state_dict()
        lost = {name: torch.full_like(value, torch.nan) for name, value in state.items()}
        found = Evaluator(made, federation)(ArrayRecord(lost))
        assert found.attack_success_rate == 0
        assert found.groups.worst == 0


@pytest.mark.parametrize(
    ("keys", "n_poisoned"),
    [
        ({}, 2),
        ({"schedule": {"first": "never"}}, 0),
        ({"poison": {"kind": "none"}}, 0),
        ({"poison": {"kind": "none"}, "attack": {"kind": "sign_flip"}}, 2),
        ({"poison": {"kind": "none"}, "reported_loss": "high"}, 2),
        ({"attackers": [{"count": 1, "schedule": {"first": "never"}}, {"count": 1}]}, 1),
        ({"poison": {"kind": "none"}, "attackers": [{"count": 2, "training": {"lr": 9.0}}]}, 2),
    ],
)
def test_who_never_attacks_is_no_attacker_in_a_comparison(keys, n_poisoned):
    assert described(scenario(**keys))["n_poisoned"] == n_poisoned


class TestSummary:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Twelve rounds, every second evaluated; a restart after round 3, 1 and 5 skipped."""
        folder = RunFolder(tmp_path)
        folder.start(COLUMNS)
        for r in range(13):
            x = r / 100 if r % 2 == 0 else math.nan
            loss = math.inf if r == 12 else x
            figures = (x, x / 4, x / 2, 1 - x, loss, x / 10, x / 5)
            skipped = "too few" if r in (1, 5) else ""
            usable, unusable = 2 * (r != 5), int(r in (2, 7))
            folder.append(
                "rounds.csv", [(r, *figures, usable, unusable, r == 3, skipped, math.nan)]
            )
            if r % 2 == 0:
                folder.append("groups.csv", [(r, "b", False, 9, 1 - x), (r, "a", True, 9, x)])
                folder.append("attacks.csv", [(r, "backdoor", 9, 1 - x, math.nan, x)])
            for client, role in enumerate((MAJORITY, MINORITY)):
                weight = 0.5 if role == MAJORITY or r > 3 else 0.0
                figures = (0.5, weight, weight, 1.0, 1.0, 1.0, 0.5, 1.0, 0.5, math.nan)
                folder.append("clients.csv", [(r, client, role, 20, "ok", *figures)] if r else [])
        folder.close()
        return tmp_path

    def test_final_figures_are_means_over_the_last_five_evaluations(self, folder: Path):
        summary = summarise(folder, scenario())
        assert summary["final_rounds"] == [4, 6, 8, 10, 12]
        final = summary["final"]
        assert final["accuracy"] == pytest.approx(0.08)
        assert final["test_accuracy"] == pytest.approx(0.02)
        assert final["worst_group_accuracy"] == pytest.approx(0.04)
        assert final["minority_accuracy"] == pytest.approx(0.08)
        assert final["majority_accuracy"] == pytest.approx(0.92)
        assert final["attack_success_rate"] == pytest.approx(0.92)
        assert summary["group_accuracy"] == pytest.approx({"b": 0.92, "a": 0.08})
        assert list(summary["group_accuracy"]) == ["b", "a"]
        assert summary["is_minority"] == {"b": False, "a": True}
        backdoor = summary["attacks"]["backdoor"]
        assert backdoor["attack_success_rate"] == pytest.approx(0.92)
        assert (summary["skipped_rounds"], summary["unusable_replies"]) == (2, 2)

    def test_the_final_figures_can_be_those_of_fewer_evaluations(self, folder: Path):
        summary = summarise(folder, scenario(evaluation={"n_final": 2}))
        assert (summary["n_final"], summary["final_rounds"]) == (2, [10, 12])
        assert summary["final"]["accuracy"] == pytest.approx(0.11)

    def test_an_attack_that_the_model_lost_again_was_highest_after_the_restart(self, folder: Path):
        summary = summarise(folder, scenario(evaluation={"n_final": 2}))
        assert summary["final"]["attack_success_rate"] == pytest.approx(0.89)
        assert summary["highest"]["attack_success_rate"] == pytest.approx(0.95)  # rounds 4 and 6

    def test_a_role_that_nobody_asks_takes_no_part(self, folder: Path):
        suppression = summarise(folder, scenario())["suppression"]
        asked = {
            role: suppression[role]["participation"] for role in (MAJORITY, MINORITY, POISONED)
        }
        # In turn with 6, 2 and 2 clients: half of the appearances each, and none.
        assert asked == pytest.approx({MAJORITY: 5 / 6, MINORITY: 2.5, POISONED: 0})
        assert suppression[MINORITY]["appearances"] == 9  # after the restart

    def test_attackers_count_while_they_attack_and_everywhere_where_nobody_does(self, folder: Path):
        rows = pd.read_csv(folder / "clients.csv").replace({"client": {0: 8}})
        rows = rows.replace({"role": {MAJORITY: POISONED}}).assign(suspicion=0.5)
        attacks = (rows["client"] == 8) & (rows["round"] % 2 == 0)
        rows.loc[attacks, ["weight", "suspicion"]] = 0.1, 1.0
        other = rows[rows["client"] == 8].assign(client=9)
        pd.concat([rows, other]).to_csv(folder / "clients.csv", index=False)
        never = {"count": 1, "schedule": {"first": "never"}}
        at_times = scenario(attackers=[{"count": 1, "schedule": {"first": 2, "every": 2}}, never])
        heard = summarise(folder, at_times)["suppression"]
        assert heard[POISONED]["appearances"] == 5  # rounds 4 to 12, the restart was after 3
        assert heard[POISONED]["weight_ratio"] == pytest.approx(0.2)
        assert (heard["separability"], heard["separability_pairs"]) == (1, 5)
        assert heard[POISONED]["participation"] == pytest.approx(2 / 3 * 5)
        nobody = summarise(folder, scenario(schedule={"first": "never"}))["suppression"]
        assert nobody[POISONED]["appearances"] == 18
        assert nobody["separability"] == pytest.approx((5 + 4 / 2) / 9)

    def test_pieces_of_a_trigger_that_nobody_trained_on_are_named(self, folder: Path):
        poison = {"kind": "distributed_backdoor", "trigger": PATCH, "target": 3, "n_pieces": 2}
        assert "untrained_pieces" not in summarise(folder, scenario(poison=poison))  # nor any other
        clients = pd.read_csv(folder / "clients.csv")
        clients.replace({"client": {0: 8, 1: 9}}).to_csv(folder / "clients.csv", index=False)
        assert "untrained_pieces" not in summarise(folder, scenario(poison=poison))
        clients = clients.replace({"client": {1: 9}})
        clients.to_csv(folder / "clients.csv", index=False)
        missing = summarise(folder, scenario(poison=poison))["untrained_pieces"]
        assert missing == {"distributed_backdoor": [0]}  # client 8's
        clients.replace({"client": {9: 10}}).to_csv(folder / "clients.csv", index=False)
        three = {"honest_majority": 6, "honest_minority": 2, "poisoned": 3, "examples_each": 20}
        missing = summarise(folder, scenario(poison=poison, clients=three))["untrained_pieces"]
        assert missing == {"distributed_backdoor": [1]}  # client 10 has 8's
        honest = scenario(poison=poison, schedule={"last": 3})  # before the restart
        assert "untrained_pieces" not in summarise(folder, honest)
        clients.assign(status="failed: dropped out").to_csv(folder / "clients.csv", index=False)
        assert "untrained_pieces" not in summarise(folder, scenario(poison=poison))  # nobody's

    def test_the_initial_model_is_no_result_of_a_short_run(self, folder: Path):
        rounds = pd.read_csv(folder / "rounds.csv")
        short = rounds[rounds["round"] <= 6]
        short.assign(restarted=0).to_csv(folder / "rounds.csv", index=False)
        summary = summarise(folder, scenario())
        assert summary["final_rounds"] == [2, 4, 6]
        assert summary["final"]["accuracy"] == pytest.approx(0.04)
        assert summary["highest"]["attack_success_rate"] == pytest.approx(0.96)
        restarted = (short["round"] == 4).astype(int)
        short.assign(restarted=restarted).to_csv(folder / "rounds.csv", index=False)
        assert summarise(folder, scenario())["final_rounds"] == [6]

    def test_a_run_that_ends_as_it_begins_again_has_no_final_figures(self, folder: Path):
        rounds = pd.read_csv(folder / "rounds.csv")
        last = (rounds["round"] == 12).astype(int)
        rounds.assign(restarted=last).to_csv(folder / "rounds.csv", index=False)
        summary = summarise(folder, scenario())
        assert (summary["n_final"], summary["final_rounds"]) == (0, [])
        assert set(summary["final"].values()) == set(summary["highest"].values()) == {None}
        assert summary["group_accuracy"] == summary["attacks"] == {}

    def test_a_model_that_learned_from_no_reply_since_it_began_again_is_no_result(
        self, folder: Path
    ):
        rounds = pd.read_csv(folder / "rounds.csv")
        rounds.loc[rounds["round"] > 3, "n_usable"] = 0
        rounds.to_csv(folder / "rounds.csv", index=False)
        clients = pd.read_csv(folder / "clients.csv")
        clients.assign(status="failed: off").to_csv(folder / "clients.csv", index=False)
        told = "no reply from round 4 on was usable; in round 12, 2 of 2 failed: off: remove"
        with pytest.raises(NobodyHeardError, match=told):
            summarise(folder, scenario())

    def test_what_is_no_number_or_was_driven_to_infinity_is_null(self, folder: Path):
        summary = summarise(folder, scenario())
        assert summary["final"]["loss"] is None
        assert summary["attacks"]["backdoor"]["flip_rate"] is None
        rounds = pd.read_csv(folder / "rounds.csv").assign(loss=2.0)
        rounds.to_csv(folder / "rounds.csv", index=False)
        assert summarise(folder, scenario())["final"]["loss"] == 2
        rounds.loc[rounds["round"] == 12, "loss"] = math.nan  # of the last evaluation alone
        rounds.to_csv(folder / "rounds.csv", index=False)
        assert summarise(folder, scenario())["final"]["loss"] is None

    def test_what_a_lift_goes_by_counts_before_a_restart_too(self, folder: Path):
        clients = pd.read_csv(folder / "clients.csv")
        lower = (clients["role"] == MAJORITY) & (clients["round"] <= 3)  # 3 of 12 rounds
        clients["believed_loss"] = clients["believed_loss"].where(~lower, 0.1)
        clients = clients.replace({"client": {0: 8}, "role": {MAJORITY: POISONED}})
        clients.to_csv(folder / "clients.csv", index=False)
        assert summarise(folder, scenario())["lifting"]["auc_by_loss"] == 0.75 * 0.5

    def test_clients_own_models_are_as_even_as_those_of_honest_clients(self, folder: Path):
        # Of rounds 10 and 12; 2 is before the restart.
        rows = [(10, 0, MAJORITY, 0.2), (10, 1, MINORITY, 0.6), (10, 2, "poisoned", 0.0)]
        rows += [(12, 0, MAJORITY, 0.4), (12, 1, MINORITY, 0.4), (2, 0, MAJORITY, 0.0)]
        rows += [(12, 2, "poisoned", 0.6), (12, 3, "poisoned", 0.6)]  # whose first model it is
        table = pd.DataFrame(rows, columns=["round", "client", "role", "accuracy"])
        table.assign(attack_success_rate=math.nan).to_csv(folder / "personal.csv", index=False)
        personal = summarise(folder, scenario())["personal"]
        assert personal[MAJORITY]["accuracy"] == pytest.approx(0.3)
        assert personal["poisoned"]["accuracy"] == pytest.approx(0.3)  # 0.0 and 0.6
        assert personal["worst_clients_accuracy"] == pytest.approx(0.3)  # 0.2 and 0.4
        assert personal["client_accuracy_variance"] == pytest.approx(0.02)  # 0.04 and 0

    def test_residuals_of_inferred_weights_are_summed_up_where_there_are_any(self, folder: Path):
        assert "weight_residual" not in summarise(folder, scenario())
        rounds = pd.read_csv(folder / "rounds.csv")
        rounds.loc[[1, 2], "weight_residual"] = 0.1, 0.3
        rounds.to_csv(folder / "rounds.csv", index=False)
        expected = pytest.approx({"mean": 0.2, "max": 0.3})
        assert summarise(folder, scenario())["weight_residual"] == expected

    def test_a_rule_that_does_not_choose_keeps_and_drops_nobody(self, folder: Path):
        summary = summarise(folder, scenario(strategy={"aggregation": {"kind": "mean"}}))
        assert summary["suppression"][MINORITY]["retention"] is None

    def test_nothing_counts_that_came_before_a_restart(self, folder: Path):
        held = [(0, MAJORITY, "plain", 20), (1, MINORITY, "faded", 20)]
        holdings = pd.DataFrame(held, columns=list(COLUMNS["holdings.csv"]))
        holdings.to_csv(folder / "holdings.csv", index=False)
        clients = pd.read_csv(folder / "clients.csv")
        clients["lift"] = clients["lift"].where(clients["round"] > 3, 0.25)
        asked = (clients["client"] == 1) | (clients["round"] > 1)
        clients[asked].to_csv(folder / "clients.csv", index=False)

        def of_minority(summary) -> list[float]:
            own = summary["suppression"][MINORITY]
            lift, weight = summary["lifting"]["ratio"][MINORITY], summary["group_weight_ratio"]
            heard = own["retention"], own["weight_ratio"], weight["faded"]
            return pytest.approx([*heard, lift, own["participation"]])

        assert of_minority(summarise(folder, scenario())) == [1, 1, 1, 1, 1 / 2 / 0.2]
        rounds = pd.read_csv(folder / "rounds.csv")
        rounds.assign(restarted=0).to_csv(folder / "rounds.csv", index=False)
        whole = of_minority(summarise(folder, scenario()))
        assert whole == [0.75, 0.75, 0.75, 0.875, 12 / 23 / 0.2]
