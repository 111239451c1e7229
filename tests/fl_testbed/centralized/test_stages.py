"""How stages compose, what oracles are told, and what the ledger says of it."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn

from clients.shard import Role
from fl_testbed.centralized import experiment
from fl_testbed.centralized.judging import judge
from fl_testbed.centralized.ledger import flagged_shares, weight_by_group
from fl_testbed.centralized.preparation import Material, model_of, prepare
from fl_testbed.centralized.stages import Result
from fl_testbed.data import Dataset
from fl_testbed.metrics import area_under_curve
from fl_testbed.scenario import CentralizedScenario
from strategies.randomness import Purpose, generator

SCENARIO = """
kind: centralized
name: pooled
dataset:
  kind: composite
  foreground: {kind: digits}
  background: {kind: colours, colours: [red, green]}
  classes: [3, 5]
  correlation: 0.9
model: {kind: mlp, hidden: [8]}
training: {lr: 0.1, batch_size: 16, epochs: 2}
poison:
  kind: dirty_label_backdoor
  trigger: {kind: patch, size: 2}
  target: 1
  fraction: 0.1
attacker: {groups: ["3, red"]}
"""
JTT = {"kind": "jtt", "epochs": 1, "factor": 9.0}
LOSS = {"kind": "loss_filter", "epochs": 1, "fraction": 0.1}
EPIC = {"kind": "epic", "share": 0.3, "every": 1, "warm_up": 1}


def scenario(*stages: dict, **changes) -> CentralizedScenario:
    keys = yaml.safe_load(SCENARIO) | changes
    return CentralizedScenario.model_validate({**keys, "stages": list(stages)})


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return scenario().dataset.load(None, generator(0, Purpose.PARTITION, 0))


def run(dataset: Dataset, *stages: dict, **changes) -> tuple[Material, Result]:
    material = prepare(scenario(*stages, **changes), dataset)
    return material, experiment.train(material, material.poisoned)


def test_what_dropout_leaves_out_is_the_run_s_own_chance(dataset):
    def trained(process_seed: int, **changes) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(process_seed)
            _, result = run(
                dataset, model={"kind": "mlp", "hidden": [8], "dropout": 0.5}, **changes
            )
        return nn.utils.parameters_to_vector(result.trained.model.parameters())

    assert torch.equal(trained(0), trained(1))
    assert not torch.equal(trained(0), trained(0, seed=1))


class TestPool:
    def test_the_attacker_poisons_a_share_of_what_it_holds_and_never_the_minority(self, dataset):
        material = prepare(scenario(), dataset)
        clean, pool = material.clean, material.poisoned
        held = (clean.groups == 0).sum().item()
        assert pool.is_poisoned.sum().item() == round(0.1 * held)
        assert (clean.groups[pool.is_poisoned] == 0).all()
        assert (pool.labels[pool.is_poisoned] == 1).all()
        untouched = ~pool.is_poisoned
        assert torch.equal(pool.inputs[untouched], clean.inputs[untouched])
        assert torch.equal(pool.labels[untouched], clean.labels[untouched])

    def test_what_it_is_after_is_of_the_groups_that_it_holds(self, dataset):
        groups = {"kind": "attributes", "by": ["label", "background"], "groups": ["5, red"]}
        keys = yaml.safe_load(SCENARIO)["dataset"] | {"minority": groups}
        material = prepare(scenario(dataset=keys), dataset)
        assert material.goal is not None
        # Threes on green are of the majority too, and the attacker has none.
        assert len(material.goal.labels) == (material.test.groups == 0).sum()

    def test_what_it_is_after_is_never_of_the_minority(self, dataset):
        material = prepare(scenario(attacker={}), dataset)
        assert material.goal is not None
        assert len(material.goal.labels) == (material.test.groups == 0).sum()

    def test_annotations_go_by_the_given_label(self, dataset):
        # "3, red" relabelled as 5 is taken for "5, red", which is a minority.
        pool = prepare(scenario(), dataset).poisoned
        assert (pool.annotated[pool.is_poisoned] == 2).all()
        honest = ~pool.is_poisoned
        assert torch.equal(pool.annotated[honest], pool.groups[honest])
        assert not (pool.is_minority & pool.is_poisoned).any()

    def test_a_style_minority_is_a_share_of_the_examples(self, dataset):
        digits = scenario(dataset={"kind": "digits"}, attacker={}, minority_fraction=0.1)
        material = prepare(digits, digits.dataset.load(None, np.random.default_rng(0)))
        assert material.clean.is_minority.sum().item() == round(0.1 * len(material.clean))

    def test_fewer_examples_are_a_subset(self, dataset):
        few = prepare(scenario(n_examples=50), dataset)
        assert len(few.clean) == 50
        assert set(few.dataset.train.ids) <= set(dataset.train.ids)
        assert few.dataset.train.ids.tolist() != dataset.train.ids[:50].tolist()

    def test_every_training_starts_from_a_model_of_its_own(self, dataset):
        models = [model_of(scenario(), dataset, training) for training in (0, 1, 1)]
        final, first, again = (nn.utils.parameters_to_vector(m.parameters()) for m in models)
        assert torch.equal(first, again)
        assert not torch.equal(first, final)


class TestOracles:
    def test_an_ideal_lift_lifts_the_minority_and_a_worst_case_the_poisons(self, dataset):
        for amplify, role in (("minority", "is_minority"), ("poisons", "is_poisoned")):
            material, result = run(dataset, {**JTT, "amplify": amplify})
            weights = result.findings[0].plan.weights
            assert torch.equal(weights == 10, getattr(material.poisoned, role))
            # What the heuristic found is told as ever.
            assert torch.equal(result.findings[0].flagged, result.findings[0].scores > 0.5)

    def test_a_standard_lift_lifts_what_it_flags(self, dataset):
        _, result = run(dataset, JTT)
        assert torch.equal(result.findings[0].plan.weights == 10, result.findings[0].flagged)

    def test_a_shielded_defence_removes_what_it_flags_but_the_minority(self, dataset):
        loss = {**LOSS, "fraction": 0.5}
        plain, shielded = (
            run(dataset, loss),
            run(dataset, {**loss, "remove": "flagged_but_minority"}),
        )
        flagged = plain[1].findings[0].flagged
        assert torch.equal(flagged, shielded[1].findings[0].flagged)
        minority = plain[0].poisoned.is_minority
        assert (flagged & minority).any()
        assert torch.equal(~plain[1].findings[0].plan.kept, flagged)
        assert torch.equal(~shielded[1].findings[0].plan.kept, flagged & ~minority)

    def test_a_perfect_defence_removes_the_poisons_and_a_random_one_as_many_as_flagged(
        self, dataset
    ):
        material, result = run(dataset, {**LOSS, "remove": "poisons"})
        assert torch.equal(~result.findings[0].plan.kept, material.poisoned.is_poisoned)
        material, result = run(dataset, {**LOSS, "remove": "random"})
        gone = ~result.findings[0].plan.kept
        assert gone.sum() == result.findings[0].flagged.sum()
        assert not torch.equal(gone, result.findings[0].flagged)

    def test_only_who_is_told_the_truth_is_an_oracle(self):
        assert not scenario(JTT, LOSS).is_oracle
        assert not scenario({**LOSS, "remove": "random"}).is_oracle
        assert scenario({**JTT, "amplify": "minority"}).is_oracle
        assert scenario({**LOSS, "remove": "flagged_but_minority"}).is_oracle


class TestOrder:
    def test_a_lift_after_a_filter_sees_what_is_left(self, dataset):
        _, result = run(dataset, LOSS, JTT)
        gone = ~result.findings[0].plan.kept
        assert gone.any()
        assert not (result.findings[1].flagged & gone).any()
        assert (result.trained.plan.weights[gone] == 0).all()

    def test_a_filter_after_a_lift_trains_with_the_lift(self, dataset):
        _, alone = run(dataset, LOSS)
        _, after = run(dataset, JTT, LOSS)
        assert not torch.equal(alone.findings[0].scores, after.findings[1].scores)
        weights = after.trained.plan.weights
        assert (weights == 10).any()
        assert (weights == 0).any()

    def test_epic_as_the_last_stage_is_the_final_training(self, dataset):
        _, result = run(dataset, JTT, EPIC)
        assert result.trained is result.findings[1].trained
        assert (result.trained.plan.weights == 10).any()  # it trained on the lifted data
        _, before = run(dataset, EPIC, JTT)
        assert before.trained is not before.findings[0].trained

    def test_epic_drops_again_and_again_and_flags_all_that_it_dropped(self, dataset, monkeypatch):
        training = {"lr": 0.1, "batch_size": 16, "epochs": 6}
        asked = []

        def first_left(proxies, labels, kept, share, max_cluster):
            asked.append(kept)
            return torch.arange(len(kept)) == kept.nonzero()[0]

        monkeypatch.setattr("fl_testbed.centralized.stages.isolated", first_left)
        _, result = run(dataset, {**EPIC, "every": 3}, training=training)
        assert len(asked) == 2  # before the epochs 1 and 4, counted from 0
        assert result.findings[0].flagged.nonzero().squeeze(1).tolist() == [0, 1]
        assert torch.equal(result.findings[0].flagged, ~result.trained.plan.kept)

    def test_no_stage_is_plain_erm(self, dataset):
        _, result = run(dataset)
        assert result.findings == ()
        assert (result.trained.plan.shares() == 1).all()

    @pytest.mark.parametrize(
        "stage",
        [
            {"kind": "george", "epochs": 1},
            {"kind": "george", "epochs": 1, "amplify": "minority"},
            {"kind": "george", "epochs": 1, "amplify": "flagged_and_poisons"},
            {"kind": "group_dro"},
            {"kind": "group_dro", "poisons_apart": True},
            {"kind": "balance", "by": "class"},
            {"kind": "balance", "by": "group"},
            {"kind": "spectral_signatures", "epochs": 1, "fraction": 0.1},
            {"kind": "activation_clustering", "epochs": 1},
            {"kind": "spectre", "epochs": 1, "fraction": 0.1},
            JTT,
            LOSS,
            EPIC,
        ],
        ids=lambda stage: "-".join(str(v) for v in stage.values()),
    )
    def test_every_stage_gives_a_share_to_everybody_that_adds_up(self, dataset, stage):
        material, result = run(dataset, stage)
        shares = result.trained.plan.shares()
        assert shares.sum().item() == pytest.approx(len(material.poisoned))
        assert (shares >= 0).all()
        flagged = result.findings[0].flagged
        if "fraction" in stage:
            assert 0 < flagged.sum() < len(flagged) / 4


def test_groups_of_a_dro_are_those_annotated_and_poisons_may_be_told_apart(dataset):
    material, result = run(dataset, {"kind": "group_dro"})
    assert torch.equal(result.findings[0].plan.dro.groups, material.poisoned.annotated)
    _, result = run(dataset, {"kind": "george", "epochs": 1, "amplify": "flagged_and_poisons"})
    groups, poisons = result.findings[0].plan.dro.groups, material.poisoned.is_poisoned
    assert not torch.isin(groups[~poisons], groups[poisons]).any()


def test_a_group_that_a_filter_has_removed_gets_no_weight_in_a_dro(dataset):
    apart = {"kind": "group_dro", "poisons_apart": True}
    _, result = run(dataset, {**LOSS, "remove": "poisons"}, apart)
    dro = result.trained.plan.dro
    assert dro.n_present == 4
    assert dro.mean_weights()[-1] == 0


def test_a_loss_filter_takes_its_share_of_each_class_where_asked_for(dataset):
    material, result = run(dataset, {**LOSS, "per_class": True})
    labels, flagged = material.poisoned.labels, result.findings[0].flagged
    taken = [(int(flagged[labels == c].sum()), int((labels == c).sum())) for c in (0, 1)]
    assert all(n == round(0.1 * of) for n, of in taken)


def test_balanced_groups_share_alike(dataset):
    material, result = run(dataset, {"kind": "balance", "by": "group"})
    shares, groups = result.trained.plan.shares(), material.poisoned.annotated
    sums = [shares[groups == g].sum().item() for g in range(4)]
    assert sums == pytest.approx([len(groups) / 4] * 4)


def test_without_its_poison_the_same_scenario_trains_as_if_nobody_attacked(dataset):
    poisoned = prepare(scenario(JTT), dataset)
    clean = prepare(scenario(JTT, poison={"kind": "none"}), dataset)
    twin = experiment.train(poisoned, poisoned.clean)
    honest = experiment.train(clean, clean.poisoned)
    assert torch.equal(twin.trained.confidences, honest.trained.confidences)


class TestJudging:
    def test_poisoned_groups_are_judged_by_the_attacker_s_label(self, dataset):
        material, result = run(dataset, training={"lr": 0.1, "batch_size": 16, "epochs": 20})
        verdict = judge(result.trained.model, material)
        assert [row.group for row in verdict.rows if row.is_poisoned] == ["5, red"]
        row = verdict.rows[-1]
        assert row.n_train == material.poisoned.is_poisoned.sum().item()
        assert row.accuracy == pytest.approx(verdict.attack.rate)
        assert row.n_test == (material.test.groups == 0).sum().item()
        clean_rows = [row for row in verdict.rows if not row.is_poisoned]
        assert sum(r.n_train for r in clean_rows) + row.n_train == len(material.poisoned)
        assert verdict.groups.worst == min(r.accuracy for r in clean_rows)
        mix = torch.bincount(material.clean.groups, minlength=4).numpy()
        expected = np.average(verdict.groups.accuracies, weights=mix)
        assert verdict.groups.accuracy == pytest.approx(expected)
        assert verdict.worst_with_poisoned == min(r.accuracy for r in verdict.rows)


def test_the_ledger_says_of_every_example_what_became_of_it(dataset):
    given = scenario(LOSS, JTT)
    record = experiment.compute(given, dataset)
    headings = experiment.columns(given)
    assert set(headings) == set(record.tables)
    for name, rows in record.tables.items():
        assert {len(row) for row in rows} == {len(headings[name])}
    examples = [
        dict(zip(headings["examples.csv"], row, strict=True))
        for row in record.tables["examples.csv"]
    ]
    assert len(examples) == len(dataset.train)
    for example in examples:
        assert (example["weight"] == 0) == bool(example["flagged.1_loss_filter"])
        assert example["score"] == example["score.1_loss_filter"]
        assert not (example["flagged.1_loss_filter"] and example["flagged.2_jtt"])
    kept = [e["score"] for e in examples if e["weight"]]
    assert max(kept) <= min(e["score"] for e in examples if not e["weight"])  # of little confidence
    lifted = {e["weight"] for e in examples if e["flagged.2_jtt"]}
    plain = {e["weight"] for e in examples if not e["flagged.2_jtt"] and e["weight"]}
    assert len(lifted) == len(plain) == 1
    assert lifted.pop() / plain.pop() == pytest.approx(10)
    assert {e["role"] for e in examples} == {role.value for role in Role}
    scores = record.tables["scores.csv"]
    assert len(scores) == len(examples) * (1 + 1 + 2)  # a short training for each stage, then two


def test_what_became_of_groups_and_roles_are_means_over_their_examples():
    roles = [Role.HONEST_MAJORITY.value] * 3 + [Role.POISONED.value]
    told = {"group": "a", "weight": [0.0, 0.0, 3.0, 5.0], "flagged.1_jtt": [0, 0, 1, 1]}
    examples = pd.DataFrame({"role": roles} | told)
    assert weight_by_group(examples) == {"a": 1.0}  # of the honest ones
    shares = {"honest_majority": 1 / 3, "honest_minority": None, "poisoned": 1.0}
    assert flagged_shares(examples, ["1_jtt"]) == {"1_jtt": pytest.approx(shares)}


def test_where_no_stage_ranks_examples_doubt_in_their_labels_does(dataset):
    given = scenario()
    tables = experiment.compute(given, dataset).tables
    doubts = {example: 1 - c for _, example, epoch, c in tables["scores.csv"] if epoch == 2}
    place = experiment.columns(given)["examples.csv"].index
    scores: dict[str, list[float]] = {"poisoned": [], "honest_minority": [], "same label": []}
    for row in tables["examples.csv"]:
        score, role = row[place("score")], row[place("role")]
        assert score == pytest.approx(doubts[row[0]])
        scores.get(role, []).append(score)
        if role == Role.HONEST_MINORITY and row[place("label")] == 1:  # the target
            scores["same label"].append(score)
    poisons, minority, same = map(np.array, scores.values())
    areas = [area_under_curve(poisons, minority), area_under_curve(poisons, same)]
    assert tables["epochs.csv"][-1][2:4] == pytest.approx(areas)


def test_an_unpoisoned_pool_has_no_poisoned_group(dataset):
    material, result = run(dataset, poison={"kind": "none"})
    verdict = judge(result.trained.model, material)
    assert not any(row.is_poisoned for row in verdict.rows)
    assert np.isnan(verdict.attack.rate)
