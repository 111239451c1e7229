"""Poisons on a federation: attackers' shards change as they should, and nobody else's does."""

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord

from clients.shard import HONEST, Role
from fl_testbed.data import DataError, Federation, Goal
from fl_testbed.data.dataset import CategoryFeature, Dataset, Examples, NumberFeature
from fl_testbed.data.federation import NOTHING
from fl_testbed.engine import federated
from fl_testbed.engine.assembly import build_federation
from fl_testbed.engine.evaluation import Evaluator
from fl_testbed.engine.models import build_model
from fl_testbed.scenario import Scenario
from fl_testbed.scenario.catalogue import CATALOGUE
from fl_testbed.scenario.poisons import AdaptiveBackdoorSpec, GradientMatchingSpec
from strategies.shapes import CPU

PATCH = {"kind": "patch", "size": [1, 2], "at": [0, 0]}
SOURCED = {"trigger": PATCH, "source": 3, "target": 0, "fraction": 0.5}
POISONS = {
    "dirty label": {"kind": "dirty_label_backdoor", **SOURCED},
    "minority look": {
        "kind": "dirty_label_backdoor", **SOURCED, "trigger": {"kind": "minority_look", "size": 3},
    },
    "adaptive": {"kind": "adaptive_backdoor", **SOURCED},
    "distributed": {"kind": "distributed_backdoor", **SOURCED, "n_pieces": 2},
    "clean label": {
        "kind": "clean_label_backdoor", "trigger": {"kind": "checks"}, "target": 0,
        "harden": {"kind": "perturbed", "steps": 3, "surrogate_epochs": 1},
    },
    "clean label, mixed": {
        "kind": "clean_label_backdoor", "trigger": {"kind": "strips", "length": 2, "gap": 1},
        "target": 0, "harden": {"kind": "interpolated"},
    },
    "edge case": {"kind": "edge_case_backdoor", "source": 3, "target": 0, "fraction": 0.5},
    "flip": {"kind": "label_flip"},
    "flip a pair": {
        "kind": "label_flip", "fraction": 0.5,
        "relabel": {"kind": "pairwise", "source": 3, "target": 0},
    },
    "flip at random": {"kind": "label_flip", "relabel": {"kind": "random"}},
    "subpopulation": {"kind": "subpopulation", "n_clusters": 4, "surrogate_epochs": 1},
    "matching": {
        "kind": "gradient_matching", "source": 3, "target": 0, "n_victims": 2, "steps": 2,
        "restarts": 1, "surrogate_epochs": 1,
    },
}  # fmt: skip
SHARE = {"clean label": 0.1, "clean label, mixed": 0.1, "matching": 0.1}
UNTARGETED = {"flip", "flip at random"}


def scenario(poison=None, clients=None, **keys) -> Scenario:
    counts = {"honest_majority": 4, "honest_minority": 2, "poisoned": 3, "examples_each": 20}
    return Scenario.model_validate(
        {
            "name": "small",
            "rounds": 1,
            "dataset": {"kind": "digits"},
            "model": {"kind": "mlp", "hidden": [8]},
            "clients": counts | (clients or {}),
            "training": {"lr": 0.1, "batch_size": 5},
            "strategy": {"aggregation": {"kind": "mean"}},
            "evaluation": {"max_examples": 200},
        }
        | ({} if poison is None else {"poison": poison})
        | keys
    )


def build(poison=None, clients=None, **keys) -> Federation:
    made = scenario(poison, clients, **keys)
    return build_federation(made, made.dataset.load(None, np.random.default_rng(0)))


def goals(federation: Federation) -> dict[str, Goal]:
    return dict(federation.poison.goals(federation.majority(federation.test_set(200))))


def test_every_poison_that_can_be_named_is_tried():
    assert {spec["kind"] for spec in POISONS.values()} == set(CATALOGUE["poisons"]) - {"none"}


@pytest.mark.parametrize("name", POISONS)
def test_a_poison_changes_its_share_of_attackers_shards_and_no_one_else_s(name):
    federation, again = build(POISONS[name]), build(POISONS[name])
    for client in range(9):
        clean, shard = federation.clean_shard(client), federation.shard(client)
        if shard.role is Role.POISONED:
            share = SHARE.get(name, 1.0 if name in UNTARGETED else 0.5)
            assert int(shard.is_poisoned.sum()) == round(share * 20)
            kept = ~shard.is_poisoned
            clean = clean._replace(groups=shard.groups)  # an edge case changes them
        else:
            kept = torch.ones_like(shard.is_poisoned)
            assert not shard.is_poisoned.any()
        assert torch.equal(shard.inputs[kept], clean.inputs[kept])
        assert torch.equal(shard.labels[kept], clean.labels[kept])
        for one, other in zip(shard[:4], again.shard(client)[:4], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", POISONS)
def test_what_a_poison_is_after_is_not_there_yet(name):
    found = goals(build(POISONS[name]))
    if name in UNTARGETED:
        assert found == {}
        return
    ((_, goal),) = found.items()
    assert len(goal.inputs) == len(goal.labels) > 0
    assert not (goal.labels == goal.target).any()
    if goal.unstamped is not None:
        assert (goal.inputs != goal.unstamped).flatten(1).any(dim=1).all()
    if {**POISONS[name], **POISONS[name].get("relabel", {})}.get("source") == 3:
        assert (goal.labels == 3).all()


def test_gradient_matching_is_after_a_few_test_images_that_its_attackers_know(monkeypatch):
    known = []

    def matching(shard, model, victims, *others, **more):
        known.append(victims)
        return shard

    monkeypatch.setattr(GradientMatchingSpec, "function", staticmethod(matching))
    federation = build(POISONS["matching"])
    federation.shard(6)
    assert torch.equal(goals(federation)["gradient_matching"].inputs, known[0])
    assert len(known[0]) == 2
    others = goals(build(POISONS["matching"], seed=1))
    assert not torch.equal(others["gradient_matching"].inputs, known[0])


@pytest.mark.parametrize("name", ["clean label", "subpopulation", "matching"])
def test_attackers_do_not_plan_with_a_model_that_diverged(name):
    federation = build(POISONS[name], training={"lr": 1e30, "batch_size": 5})
    with pytest.raises(ValueError, match=r"plan with diverged: lower training\.lr"):
        federation.shard(6)


def test_images_are_mixed_with_those_of_other_classes(monkeypatch):
    mixed_with = []

    def interpolated(images, others, rng, strength):
        mixed_with.append(others)
        return images

    monkeypatch.setattr("clients.poisons.interpolated", interpolated)
    federation = build(POISONS["clean label, mixed"])
    federation.shard(6)
    held = [federation.clean_shard(client) for client in range(6, 9)]
    assert torch.equal(
        mixed_with[0], torch.cat([shard.inputs[shard.labels != 0] for shard in held])
    )


def test_a_subpopulation_is_a_small_part_of_the_test_set_and_what_attackers_hold():
    federation = build(POISONS["subpopulation"])
    (goal,) = goals(federation).values()
    assert 0 < len(goal.labels) < 150
    flipped = [federation.shard(client) for client in range(6, 9)]
    members = torch.cat([shard.inputs[shard.is_poisoned] for shard in flipped])
    held = torch.cat([federation.clean_shard(client).inputs for client in range(6, 9)])
    assert all((held == member).flatten(1).all(dim=1).any() for member in members)
    assert all((shard.labels[shard.is_poisoned] == goal.target).all() for shard in flipped)


def test_nobody_has_looked_for_a_subpopulation_where_nobody_attacks():
    assert goals(build(POISONS["subpopulation"], {"poisoned": 0})) == {}


def test_each_attacker_stamps_its_own_piece_and_the_test_stamps_all():
    kinds = [
        {"count": 1, "poison": {"kind": "none"}},
        {"count": 2, "poison": POISONS["distributed"]},
    ]
    federation = build(attackers=kinds)
    assert not federation.shard(6).is_poisoned.any()
    for piece, client in enumerate((7, 8)):
        shard, clean = federation.shard(client), federation.clean_shard(client)
        stamped = clean.inputs[shard.is_poisoned].clone()
        stamped[:, :, 0, piece] = 1
        assert torch.equal(shard.inputs[shard.is_poisoned], stamped)
    (goal,) = goals(federation).values()
    assert (goal.inputs[:, :, 0, :2] == 1).all()


def test_a_trigger_that_sets_no_pixels_cannot_be_learnt():
    with pytest.raises(DataError, match="overwrites none: choose patch, checks or strips"):
        build(POISONS["adaptive"] | {"trigger": {"kind": "blended", "strength": 0.5}})


def test_attackers_stamp_what_they_learn_each_round_and_so_does_the_test_and_a_resumed_run(
    monkeypatch,
):
    own_shard, stamped = Federation.shard, []

    def shard(self, client, learnt=NOTHING):
        stamped.extend(learnt.values())
        return own_shard(self, client, learnt)

    monkeypatch.setattr(Federation, "shard", shard)
    kind, square = "adaptive_backdoor", {"kind": "patch", "size": 5, "value": 0.5}
    poison = {"kind": kind, "trigger": square, "target": 0, "epochs": 2, "step_size": 0.05}
    made = scenario(poison, rounds=3, schedule={"last": 2})
    dataset = made.dataset.load(None, np.random.default_rng(0))
    records = list(federated.records(dataset, made, -1, None))
    none, first, second, last = (r.state.get(f"learnt/{kind}") for r in records)
    assert none is None
    assert not torch.equal(first, second)
    assert torch.equal(second, last)
    assert torch.equal(torch.stack(stamped), torch.stack([first] * 3 + [second] * 3))
    arrays = records[3].state
    model = ArrayRecord({n.removeprefix("arrays/"): arrays[n] for n in arrays if "arrays/" in n})
    evaluate = Evaluator(made, build_federation(made, dataset))
    before, after = (evaluate(model, now).attacks[kind] for now in ({}, {kind: last}))
    assert records[3].tables["attacks.csv"][0][2:] == after != before
    resumed = list(federated.records(dataset, made, 1, records[1].state))[-1]
    assert repr(resumed.tables["attacks.csv"]) == repr(records[3].tables["attacks.csv"])
    assert all(torch.equal(arrays[name], value) for name, value in resumed.state.items())


def test_the_first_attacker_there_learns_for_all_that_have_its_poison():
    others = {"count": 1, "poison": {"kind": "label_flip"}}
    adaptive = POISONS["adaptive"] | {"trigger": PATCH | {"value": 0.5}, "epochs": 1}
    kinds = [others, {"count": 2, "poison": adaptive}]
    made, federation = scenario(attackers=kinds), build(attackers=kinds)
    received = build_model(made, federation.dataset).state_dict()

    def learn(*clients, before=NOTHING):
        found = federation.poison.learn(1, clients, received, before, CPU)
        return found.get("adaptive_backdoor")

    assert learn(0, 5, 6) is None
    assert torch.equal(learn(6, 8, 7), learn(7))
    assert not torch.equal(learn(7), learn(8))
    first = {"adaptive_backdoor": learn(7)}
    assert not torch.equal(learn(7, before=first), first["adaptive_backdoor"])
    assert federation.poison.learn(1, [0], received, first, CPU) == first
    blank = {name: torch.zeros_like(value) for name, value in received.items()}
    (untaught,) = federation.poison.learn(1, [7], blank, NOTHING, CPU).values()
    assert (untaught[:, 0, :2] == 0.5).all()
    for client in (7, 8):
        shard = federation.shard(client, first)
        assert (
            shard.inputs[shard.is_poisoned, :, 0, :2] == first["adaptive_backdoor"][:, 0, :2]
        ).all()


def test_who_learns_trains_as_the_round_does_on_clean_examples_and_each_poison_by_itself(
    monkeypatch,
):
    told = []

    def learn(pattern, model, shard, settings, rng, **_):
        assert not shard.is_poisoned.any()
        told.append((settings.lr, rng.random()))
        return pattern + 1

    monkeypatch.setattr(AdaptiveBackdoorSpec, "function", staticmethod(learn))
    poisons = [POISONS["adaptive"] | {"target": target} for target in (0, 1)]
    keys = {
        "attackers": [{"count": n, "poison": own} for n, own in zip((1, 2), poisons, strict=True)],
        "training": {"lr": 0.1, "lr_decay": 0.5, "batch_size": 5},
    }
    made, federation = scenario(**keys), build(**keys)
    received = build_model(made, federation.dataset).state_dict()
    learnt = federation.poison.learn(1, [6, 7], received, NOTHING, CPU)
    learnt = federation.poison.learn(2, [6, 7], received, learnt, CPU)
    assert [value.max() for value in learnt.values()] == [3, 3]  # from white, in two rounds
    assert [lr for lr, _ in told] == [0.1, 0.1, 0.05, 0.05]
    assert len({chance for _, chance in told}) == 4
    lost = scenario(**keys, clients={"dropout_of": {"poisoned": 0.99}})
    list(federated.records(federation.dataset, lost, -1, None))
    assert len(told) == 4  # whose reply is lost has learnt nothing


def test_kinds_of_attackers_get_the_examples_that_their_own_poison_needs():
    kinds = [
        {"count": 1, "poison": {"kind": "label_flip"}},
        {"count": 2, "poison": POISONS["dirty label"] | {"fraction": 1.0}},
    ]
    for clients in (None, {"overlap": True}):
        federation = build(clients=clients, attackers=kinds)
        flips, *stamps = (federation.clean_shard(client) for client in range(6, 9))
        assert len(flips.labels.unique()) > 3
        assert all((shard.labels == 3).all() for shard in stamps)
    flip = POISONS["flip a pair"] | {"relabel": {"kind": "pairwise", "source": 5, "target": 0}}
    federation = build(attackers=[kinds[1], {"count": 1, "poison": flip}])
    # It gets whatever comes, and not half a shard of what the first kind wants.
    assert (federation.clean_shard(8).labels == 3).sum() < 10


@pytest.mark.parametrize(
    ("held_by", "majority", "minority"),
    [("nobody", 0.0, 0.0), ("minority", 0.0, 1.0), ("everyone", 0.5, 1.0)],
)
def test_an_edge_case_says_which_honest_clients_hold_the_rare_examples(held_by, majority, minority):
    federation = build(POISONS["edge case"] | {"held_by": held_by}, {"examples_each": 40})
    for role, share in ((Role.HONEST_MAJORITY, majority), (Role.HONEST_MINORITY, minority)):
        for client in federation.population.clients(role):
            shard = federation.shard(client)
            source = shard.labels == 3
            rare = int(shard.groups[source].sum())
            assert rare == round(share * int(source.sum()))
            assert (shard.groups[~source] == int(role is Role.HONEST_MINORITY)).all()
    honest = [federation.shard(client) for client in range(6)]
    held = int(sum(shard.groups.sum() for shard in honest))
    assert federation.group_counts(*HONEST).tolist() == [240 - held, held]
    assert federation.holdings()[:6, 1].tolist() == [int(s.groups.sum()) for s in honest]
    cells = [torch.bincount(10 * s.groups + s.labels, minlength=20) for s in honest]
    assert np.array_equal(federation.cell_counts(range(6)), torch.stack(cells))
    (goal,) = goals(federation).values()
    torch.testing.assert_close(goal.inputs, 1 - goal.unstamped)


def test_an_edge_case_takes_nothing_from_honest_clients():
    without = build()
    flip = [{"count": 1, "poison": {"kind": "label_flip"}}]
    for n, others in ((3, []), (2, flip)):
        with_attack = build(attackers=[{"count": n, "poison": POISONS["edge case"]}, *others])
        for client in range(6):
            rows = (fed.partition.client_rows(client) for fed in (with_attack, without))
            assert np.array_equal(*rows)


def test_the_server_holds_no_rare_example_that_nobody_holds():
    server = {"n_examples": 60, "minority_fraction": 0.5}
    shard = build(POISONS["edge case"] | {"held_by": "nobody"}, server_data=server).server_shard()
    assert (shard.groups[:30] == (shard.labels[:30] != 3).long()).all()
    assert not shard.groups[30:].any()


class TestTables:
    ROWS = Examples(np.random.default_rng(0).random((200, 4), np.float32), np.arange(200) % 4)
    AGE = NumberFeature(1, mean=40.0, scale=10.0, is_log=False)
    SEX = CategoryFeature(2, ("f", "m"))
    TABLE = Dataset("people", ROWS, ROWS, tuple("abcd"), features={"age": AGE, "sex": SEX})

    def build(self, poison) -> Federation:
        made = scenario(
            poison, {"honest_minority": 0}, dataset={"kind": "digits", "minority": {"kind": "none"}}
        )
        return build_federation(made, self.TABLE)

    def test_a_column_is_set_in_its_own_units(self):
        trigger = {"kind": "features", "set": {"age": 65.0, "sex": "m"}}
        federation = self.build(
            {"kind": "clean_label_backdoor", "trigger": trigger, "target": 1,
             "harden": {"kind": "interpolated"}}
        )  # fmt: skip
        shard = federation.shard(4)
        assert (shard.inputs[shard.is_poisoned, 1:] == torch.tensor([2.5, 0.0, 1.0])).all()

    @pytest.mark.parametrize("name", ["subpopulation", "flip a pair"])
    def test_poisons_that_stamp_nothing_take_tables(self, name):
        assert self.build(POISONS[name]).shard(4).is_poisoned.sum() == 10

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("dirty label", "poison.trigger.kind patch needs images, but people holds features"),
            ("minority look", "this one needs dataset.minority inverted"),
            ("matching", "gradient_matching needs images, but people holds features"),
            ("adaptive", "adaptive_backdoor needs images, but people holds features"),
        ],
    )
    def test_poisons_that_paint_do_not(self, name, told):
        with pytest.raises(DataError, match=told):
            self.build(POISONS[name])
