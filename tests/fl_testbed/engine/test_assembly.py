"""From a scenario's keys to who holds what."""

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord
from torch import nn

from clients.attacks import ProjectedDescent
from clients.shard import Role
from fl_testbed.data import DataError, Dataset, Examples, Federation
from fl_testbed.data.dataset import CategoryFeature, NumberFeature
from fl_testbed.engine import assembly, attackers, federated
from fl_testbed.engine.assembly import build_federation
from fl_testbed.engine.datasets import DatasetCache, checked_federation
from fl_testbed.engine.inline_grid import InlineGrid
from fl_testbed.engine.memory import server_memory
from fl_testbed.engine.models import build_model, layers_of, outlined_model
from fl_testbed.engine.server_data import ServerData
from fl_testbed.scenario import Scenario, ScenarioError
from strategies.randomness import Purpose, generator

N_TRAIN, N_TEST = 400, 100


def examples(n: int, seed: int) -> Examples:
    """People of two sexes in three classes, of whom 10 % are women of class 2."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    sex = np.where(labels == 2, np.arange(n) % 10 < 3, np.arange(n) % 10 < 5).astype(int)
    pixels = rng.random((n, 1, 8, 8)).astype(np.float32)
    return Examples(pixels, labels, {"sex": sex}, np.arange(n) // 20)


DATASET = Dataset(
    "people",
    examples(N_TRAIN, 0),
    examples(N_TEST, 1),
    ("a", "b", "c"),
    {"sex": ("man", "woman")},
)
BY_SEX = {"kind": "attributes", "by": ["sex", "label"], "groups": ["woman, c"]}


def scenario(minority=None, clients=None, **keys) -> Scenario:
    counts = {"honest_majority": 6, "honest_minority": 2, "poisoned": 2, "examples_each": 10}
    return Scenario.model_validate(
        {
            "name": "small",
            "rounds": 1,
            "dataset": {"kind": "digits"} | ({} if minority is None else {"minority": minority}),
            "model": {"kind": "mlp", "hidden": [4]},
            "clients": counts | (clients or {}),
            "training": {"lr": 0.1, "batch_size": 5},
            "strategy": {"aggregation": {"kind": "mean"}},
        }
        | keys
    )


def build(*args, **keys) -> Federation:
    return build_federation(scenario(*args, **keys), DATASET)


def women_of_class_c(federation: Federation, role: Role) -> int:
    shards = [federation.shard(client) for client in federation.population.clients(role)]
    name = federation.group_names.index("woman, c")
    return sum(int((shard.groups == name).sum()) for shard in shards)


def test_minority_clients_hold_the_minority_s_examples():
    federation = build(BY_SEX)
    assert women_of_class_c(federation, Role.HONEST_MINORITY) == 20
    assert women_of_class_c(federation, Role.HONEST_MAJORITY) == 0


def test_the_mix_and_the_concentration_are_the_scenario_s():
    mixed = build(BY_SEX, {"minority_mix": {"woman, c": 0.7, "woman, a": 0.3}})
    assert women_of_class_c(mixed, Role.HONEST_MINORITY) == 14
    spread = build(BY_SEX, {"minority_concentration": 0.0})
    assert women_of_class_c(spread, Role.HONEST_MAJORITY) > 0


@pytest.mark.parametrize("minority", [None, BY_SEX])
def test_the_server_holds_as_much_of_the_minority_as_the_scenario_says(minority):
    for fraction, expected in ((0.0, 0), (0.25, 5), (1.0, 20)):
        server_data = {"n_examples": 20, "minority_fraction": fraction}
        federation = build(minority, server_data=server_data)
        in_minority = [
            int(g) in federation.groups.minority for g in federation.server_shard().groups
        ]
        assert (len(in_minority), sum(in_minority)) == (20, expected)


def test_attackers_hold_whose_data_the_scenario_says():
    assert women_of_class_c(build(BY_SEX), Role.POISONED) == 0
    posing = build(BY_SEX, {"poisoned_hold": "minority", "examples_each": 6})
    assert women_of_class_c(posing, Role.POISONED) == 12


def test_attackers_can_poison_as_much_as_the_scenario_says():
    poison = {
        "kind": "dirty_label_backdoor",
        "trigger": {"kind": "patch", "size": 2},
        "source": 1,
        "target": 0,
        "fraction": 0.8,
    }
    for partition in ({"kind": "iid"}, {"kind": "dirichlet", "alpha": 0.1}):
        federation = build(partition=partition, poison=poison)
        for client in federation.population.clients(Role.POISONED):
            assert federation.shard(client).is_poisoned.sum() == 8


@pytest.mark.parametrize(
    "partition",
    [
        {"kind": "iid"},
        {"kind": "quantity", "alpha": 1.0, "min_examples": 2},
        {"kind": "dirichlet", "alpha": 0.5},
        {"kind": "pathological"},
        {"kind": "natural"},
    ],
    ids=lambda partition: partition["kind"],
)
@pytest.mark.parametrize("minority", [None, BY_SEX], ids=["inverted", "by_sex"])
def test_every_partition_gives_every_client_examples(partition, minority):
    if partition["kind"] == "natural" and minority is not None:
        minority = {"kind": "attributes", "by": ["sex"], "groups": ["woman"]}
    federation = build(minority, partition=partition, server_data={"n_examples": 20})
    shards = [federation.shard(client) for client in range(10)]
    assert sum(len(shard.labels) for shard in shards) == 100
    assert min(len(shard.labels) for shard in shards) >= 2
    assert len(federation.server_shard().labels) == 20


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (
            {"minority": {"kind": "attributes", "by": ["sex"]}},
            "no group of people is small enough to be a minority, of man (226); woman (174): name "
            "some in dataset.minority.groups, or set clients.honest_minority to 0",
        ),
        (
            {"minority": BY_SEX, "clients": {"minority_mix": {"women": 1.0}}},
            "there is no group 'women': clients.minority_mix can name man, a; man, b; man, c; "
            "woman, a; woman, b; woman, c",
        ),
        (
            {
                "poison": {
                    "kind": "dirty_label_backdoor",
                    "trigger": {"kind": "patch", "size": 2},
                    "target": 3,
                }
            },
            "poison.target needs a class from 0 to 2, got 3",
        ),
        (
            {"server_data": {"n_examples": 20, "bias": {"label": 3, "share": 0.5}}},
            "server_data.bias.label needs a class from 0 to 2, got 3",
        ),
        (
            {"evaluation": {"n_validation": 395, "split": "validation"}},
            "10 clients with 10 examples each need 100 training examples, but there are 5: lower "
            "clients.examples_each or the number of clients",
        ),
    ],
)
def test_what_the_data_do_not_have_is_refused(arguments, fault):
    with pytest.raises(DataError) as error:
        build(**arguments)
    assert str(error.value) == fault


@pytest.mark.parametrize("kind", ["lenet", "cnn", "resnet18"])
def test_models_of_images_refuse_features(kind):
    part = Examples(np.zeros((4, 9), dtype=np.float32), np.zeros(4, dtype=int))
    table = Dataset("table", part, part, ("a", "b"))
    with pytest.raises(DataError, match=rf"model.kind {kind} needs images, but table holds"):
        outlined_model(scenario(model={"kind": kind}), table)
    assert build_model(scenario(model={"kind": "logistic_regression"}), table)


def test_a_model_of_one_s_own_is_tried_once_for_runs_that_share_it(tmp_path):
    code = tmp_path / "net.py"
    code.write_text(
        "from torch import nn\nmade = []\n"
        "def net(n_classes, width=1):\n"
        "    made.append(width)\n"
        "    layers = nn.Linear(64, width), nn.Linear(width, n_classes)\n"
        "    return nn.Sequential(nn.Flatten(), *layers)\n"
    )
    own = {"kind": f"{code}:net"}
    runs = [scenario(model=own, seed=seed) for seed in (0, 1, 2)]
    wider = scenario(model={**own, "args": {"width": 2}})
    outlined = [outlined_model(run, DATASET) for run in (*runs, wider)]
    assert [len(model[1].bias) for model in outlined] == [1, 1, 1, 2]
    assert wider.model.code.function.__globals__["made"] == [1, 2]


def test_a_model_that_no_memory_holds_is_refused_before_it_is_built():
    widths = [1_000_000, 1_000_000]  # 10¹² numbers
    vast = scenario(model={"kind": "mlp", "hidden": widths})
    with pytest.raises(ScenarioError, match=r"GiB are free: .* use a smaller model"):
        federated.check([vast], DatasetCache(None))


def test_deepsight_refuses_a_model_whose_last_module_cannot_be_its_output_layer(tmp_path):
    code = tmp_path / "mine.py"
    code.write_text(
        "from torch import nn\n"
        "def flat(input_shape, n_classes):\n"
        "    model = nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))\n"
        "    model.scale = nn.LayerNorm(64)\n"  # declared last
        "    model.forward = lambda x: model[1](model.scale(model[0](x)))\n"
        "    return model\n"
    )
    strategy = {"aggregation": {"kind": "deepsight"}}
    made = scenario(model={"kind": f"{code}:flat"}, strategy=strategy)
    with pytest.raises(ScenarioError, match=r"^\w+: model: .* 10 classes .* 64 weights of scale"):
        checked_federation(made, DatasetCache(None))


def test_random_inputs_count_as_the_server_s_memory():
    few, many = (
        scenario(strategy={"aggregation": {"kind": "deepsight", "n_samples": n}}) for n in (1, 101)
    )
    more = server_memory(many, DATASET)[1] - server_memory(few, DATASET)[1]
    assert more == 4 * 3 * 100 * 8 * 8


def test_a_trigger_may_be_values_of_a_table_s_columns():
    features = {"age": NumberFeature(0, 40.0, 10.0, False), "sex": CategoryFeature(1, ("f", "m"))}
    part = Examples(np.zeros((60, 3), dtype=np.float32), np.arange(60) % 2)
    table = Dataset("table", part, part, ("no", "yes"), features=features)

    def poison(**values) -> dict:
        trigger = {"kind": "features", "set": values}
        return {"kind": "dirty_label_backdoor", "trigger": trigger, "target": 1, "fraction": 0.2}

    def federation(**values) -> Federation:
        who = {"honest_minority": 0, "examples_each": 5}
        return build_federation(scenario({"kind": "none"}, who, poison=poison(**values)), table)

    shard = federation(age=25, sex="m").shard(7)
    stamped = shard.inputs[shard.is_poisoned]
    assert stamped.tolist() == [[-1.5, 0, 1]]
    with pytest.raises(DataError, match=r"poison.trigger.set: .* columns of table: age, sex"):
        federation(height=1)
    with pytest.raises(DataError, match=r"poison.trigger.set.sex: needs one of f, m, got 'x'"):
        federation(sex="x")
    with pytest.raises(DataError, match=r"set: .* columns of people: none, as it is not a table"):
        build(poison=poison(age=25))


def test_a_trigger_of_pixels_needs_images():
    part = Examples(np.zeros((60, 3), dtype=np.float32), np.arange(60) % 2)
    table = Dataset("table", part, part, ("no", "yes"))
    trigger = {"kind": "patch", "size": 2}
    poison = {"kind": "dirty_label_backdoor", "trigger": trigger, "target": 1}
    who = {"honest_minority": 0, "examples_each": 5}
    with pytest.raises(DataError, match=r"poison.trigger.kind patch needs images"):
        build_federation(scenario({"kind": "none"}, who, poison=poison), table)
    with pytest.raises(DataError, match=r"dataset.minority.kind inverted needs images"):
        build_federation(scenario({"kind": "inverted"}, who), table)


TWO_KINDS = [
    {
        "count": 1,
        "training": {"local_epochs": 3},
        "training_attack": {"kind": "pgd", "radius": 2.0, "relative": True},
        "attack": {"kind": "minority_mimic"},
        "reported_loss": "low",
        "schedule": {"first": 2},
    },
    {"count": 1, "poison": {"kind": "none"}, "attack": {"kind": "sign_flip"}},
]
ATTACKED = {"poison": {"kind": "label_flip"}, "attackers": TWO_KINDS, "rounds": 3}


@pytest.mark.parametrize("restart", [True, False])
def test_the_learning_rate_falls_from_round_to_round_and_begins_again_with_the_model(
    restart: bool, monkeypatch
):
    lift = {"kind": "jtt", "factor": 2, "n_flagged": 1, "warm_up_rounds": 2, "restart": restart}
    changes = {
        "rounds": 4,
        "training": {"lr": 0.8, "batch_size": 10, "lr_decay": 0.5},
        "strategy": {"aggregation": {"kind": "mean"}, "reweighting": lift},
    }
    made, federation = scenario(**changes), build(**changes)
    monkeypatch.setattr(assembly, "ShardClientApp", lambda *args, **more: args)
    work_of = assembly.build_client_app(made, federation)[5]
    rates = [work_of(0, round_).settings.lr for round_ in (1, 2, 3, 4)]
    assert rates == [0.8, 0.4, *([0.8, 0.4] if restart else [0.2, 0.1])]


def test_attackers_train_on_their_own_terms_in_their_rounds_alone(monkeypatch):
    made, federation = scenario(**ATTACKED), build(**ATTACKED)
    monkeypatch.setattr(assembly, "ShardClientApp", lambda *args, **more: args)
    work_of = assembly.build_client_app(made, federation)[5]
    assert work_of(0, 2).settings == made.training.build()  # honest
    before, during, other = work_of(8, 1), work_of(8, 2), work_of(9, 2)
    assert torch.equal(before.shard.labels, federation.clean_shard(8).labels)
    assert torch.equal(during.shard.labels, federation.shard(8).labels)
    assert torch.equal(during.twin.labels, federation.clean_shard(8).labels)
    assert not torch.equal(during.shard.labels, during.twin.labels)
    assert before[1:] == (made.training.build(), None, None, True, "honest")
    settings, attack, _, keeps_received, claim = during[1:]
    assert (settings.local_epochs, settings.lr, keeps_received, claim) == (3, 0.1, True, "low")
    assert attack == ProjectedDescent(2.0, relative=True)
    assert torch.equal(other.shard.labels, federation.clean_shard(9).labels)
    assert other[1:] == (made.training.build(), None, None, False, "honest")


@pytest.mark.parametrize(("given", "assumed"), [(3, 3), ("oracle", 2)])
def test_attackers_are_told_who_is_who_and_what_the_rule_assumes(given, assumed, monkeypatch):
    made = scenario(
        **ATTACKED,
        strategy={"aggregation": {"kind": "multi_krum", "n_malicious": given}},
    )
    monkeypatch.setattr(attackers, "AdversaryGrid", lambda grid, *told: told[:2])
    app = assembly.build_client_app(made, build(**ATTACKED))
    (mimics, flippers), around = attackers.with_attackers(InlineGrid(app, 1.0), made)
    assert (mimics.clients, flippers.clients) == (range(8, 9), range(9, 10))
    assert (mimics.schedule.first, flippers.schedule.first) == (2, 1)
    assert (mimics.knowledge, flippers.knowledge) == ("omniscient", "blind")
    assert (around.minority, around.attackers) == (range(6, 8), range(8, 10))
    assert around.n_assumed(10) == assumed
    strategy = assembly.build_strategy(made, build(**ATTACKED), frozenset())
    assert strategy.pipeline.aggregate.keywords["n_malicious"] == assumed


@pytest.mark.parametrize("given", [2, "oracle"])
def test_attackers_foresee_that_a_rule_with_too_few_updates_moves_nothing(given):
    rule = attackers.known_rule(
        scenario(
            attack={"kind": "sign_flip"},
            strategy={"aggregation": {"kind": "krum", "n_malicious": given}},
        )
    )
    told = {"round_": 1, "received": torch.zeros(3), "layers": {}, "rng": np.random.default_rng(0)}
    assert rule(torch.ones(7, 3), **told).tolist() == [1.0, 1.0, 1.0]
    assert rule(torch.ones(6, 3), **told).tolist() == [0.0, 0.0, 0.0]


def test_attackers_foresee_a_rule_that_goes_by_layers_and_by_the_round(tmp_path):
    code = tmp_path / "mine.py"
    code.write_text(
        "from strategies.aggregation import mean\n\n"
        "def last_only(updates, layers, round_):\n"
        "    result = mean(updates)\n"
        "    result.update[: layers['bias'].start] = round_\n"
        "    return result\n"
    )
    made = scenario(strategy={"aggregation": {"kind": f"{code}:last_only"}})
    layers = {"weight": slice(0, 2), "bias": slice(2, 3)}
    told = {"round_": 4, "received": torch.zeros(3), "layers": layers}
    rng = np.random.default_rng(0)
    assert attackers.known_rule(made)(torch.ones(7, 3), rng=rng, **told).tolist() == [4, 4, 1]


def test_attackers_train_their_surrogate_for_its_own_epochs():
    shard = build().clean_shard(0)
    hasty = scenario(training={"lr": 0.1, "batch_size": 5, "local_steps": 1})
    one, other = (
        attackers.train_surrogate(made, DATASET, shard, 3).state_dict()
        for made in (scenario(), hasty)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_server_trains_anew_in_each_round_and_judges_without_dropout():
    model = {"kind": "mlp", "hidden": [8], "dropout": 0.5}
    made = scenario(model=model, server_data={"n_examples": 20})
    server = ServerData(made, build_federation(made, DATASET))
    start = ArrayRecord(build_model(made, DATASET).state_dict())
    first, again, later = (server.train(start, round_) for round_ in (1, 1, 2))
    assert same_arrays(first, again)
    assert not same_arrays(first, later)
    assert server.evaluate(first) == server.evaluate(again)
    slow = scenario(model=model, training={**made.training.model_dump(), "lr_decay": 1e-30})
    unmoved = ServerData(slow, build_federation(made, DATASET)).train(start, 2)
    assert same_arrays(unmoved, start)


def test_the_server_asks_models_of_the_same_random_inputs_all_round():
    made = scenario()
    server = ServerData(made, build_federation(made, DATASET))  # without data of its own
    model = build_model(made, DATASET)
    start = ArrayRecord(model.state_dict())
    first = server.respond(start, 7, 1)
    assert first.shape == (7, DATASET.n_classes)
    assert torch.equal(server.respond(start, 7, 1), first)
    assert not torch.equal(server.respond(start, 7, 2), first)
    drawn = generator(made.seed, Purpose.PROBE, 1).random((7, *DATASET.input_shape), np.float32)
    torch.testing.assert_close(first, model(torch.from_numpy(drawn)).detach())


def test_representations_are_what_the_output_layer_is_given_on_the_server_s_data():
    made = scenario(server_data={"n_examples": 20})
    federation, model = build_federation(made, DATASET), build_model(made, DATASET)
    given = ServerData(made, federation).represent(ArrayRecord(model.state_dict()))
    torch.testing.assert_close(given, model[:-1](federation.server_shard().inputs).detach())


def test_a_model_s_errors_loss_and_confidence_are_means_over_the_server_s_data():
    made = scenario(server_data={"n_examples": 20})
    federation, model = build_federation(made, DATASET), build_model(made, DATASET)
    found = ServerData(made, federation).evaluate(ArrayRecord(model.state_dict()))
    shard = federation.server_shard()
    given = model(shard.inputs).detach().softmax(dim=1)
    right = given[torch.arange(20), shard.labels]
    wrong = (given.argmax(dim=1) != shard.labels).double().mean()
    means = [float(wrong), float(-right.log().mean()), float(right.mean())]
    assert found == pytest.approx(means)


def same_arrays(one: ArrayRecord, other: ArrayRecord) -> bool:
    return all(np.array_equal(one[name].numpy(), other[name].numpy()) for name in one)


def test_frozen_parameters_are_no_part_of_an_update() -> None:
    # As part of it, all 0, they made the trimmed mean seem to hear a minority that it silences.
    model = nn.Sequential(nn.Linear(3, 2).requires_grad_(False), nn.Linear(2, 2))
    assert layers_of(model) == {"1.weight": slice(0, 4), "1.bias": slice(4, 6)}
