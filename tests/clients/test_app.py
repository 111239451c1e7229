"""The Flower ClientApp: what a server that sends a model gets back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from torch import nn

from clients.app import CLEAN_ARRAYS, LAST_RECEIVED, ShardClientApp, Work
from clients.attacks import Neurotoxin, ProjectedDescent
from clients.local import Ditto, ExampleGroupDro, ExampleJtt, Lesson, WorkerMomentum
from clients.reporting import report_of
from clients.shard import Role, Shard
from clients.training import LocalTraining, train
from fl_testbed.engine.flower_internals import become_server
from strategies.randomness import Purpose, generator

SIZES = {0: 7, 1: 12, 2: 3}
SETTINGS = LocalTraining(lr=0.5, batch_size=5, local_epochs=2)
SEED = 11


@pytest.fixture(autouse=True)
def _server() -> None:
    become_server()


def shard_of(client: int) -> Shard:
    rng = torch.Generator().manual_seed(client)
    n = SIZES[client]
    return Shard(
        inputs=torch.rand(n, 4, generator=rng),
        labels=torch.randint(3, (n,), generator=rng),
        groups=torch.zeros(n, dtype=torch.int64),
        is_poisoned=torch.zeros(n, dtype=torch.bool),
        role=Role.HONEST_MAJORITY,
    )


def build_model(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(4, 3)


def app(cohort: int = 1) -> ShardClientApp:
    return ShardClientApp(shard_of, build_model, SETTINGS, SEED, cohort)


def message(client: int, server_round: int = 1, model_seed: int = 9, **config: bool) -> Message:
    content = RecordDict(
        {
            "arrays": ArrayRecord(dict(build_model(model_seed).state_dict())),
            "config": ConfigRecord({"server-round": server_round, **config}),
        }
    )
    return Message(content, dst_node_id=client, message_type=MessageType.TRAIN)


def context(client: int) -> Context:
    return Context(
        run_id=1,
        node_id=100 + client,
        node_config={"partition-id": client},
        state=RecordDict(),
        run_config={},
    )


def arrays_of(reply: Message) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in reply.content.array_records["arrays"].items()}


def metrics_of(reply: Message) -> dict:
    return dict(reply.content.metric_records["metrics"])


def test_it_trains_the_received_model_on_the_shard_of_its_partition():
    expected = build_model(9)
    rng = generator(SEED, Purpose.TRAINING, 4, 1)
    loss = train(expected, shard_of(1), SETTINGS, rng)
    reply = app()(message(1, server_round=4), context(1))
    arrays = arrays_of(reply)
    assert list(arrays) == ["weight", "bias"]
    for name, value in expected.state_dict().items():
        np.testing.assert_array_equal(arrays[name], value.numpy())
    assert metrics_of(reply) == {"num-examples": 12, "train-loss": loss}


def test_the_loss_of_the_received_model_is_told_only_when_asked_for():
    reply = app()(message(1, **{"report-loss": True}), context(1))
    shard = shard_of(1)
    expected = report_of(build_model(9), shard)
    assert metrics_of(reply)["received-loss"] == expected.loss
    assert metrics_of(reply)["received-confidence"] == expected.confidence
    assert metrics_of(reply)["received-loss"] > metrics_of(reply)["train-loss"]
    assert "received-loss" not in metrics_of(app()(message(1), context(1)))


def test_whoever_trained_before_the_loss_told_is_of_the_received_model():
    used, first = app(), message(0, **{"report-loss": True})
    used(first, context(0))
    second = Message(first.content, dst_node_id=1, message_type=MessageType.TRAIN)
    told = metrics_of(used(second, context(1)))["received-loss"]
    assert told == report_of(build_model(9), shard_of(1)).loss


def test_an_attacker_may_lie_about_its_loss():
    def liar(client: int, round_: int, learnt: object) -> Work:
        return Work(shard_of(client), SETTINGS, claim="high")

    asked = message(1, **{"report-loss": True})
    lying = ShardClientApp(shard_of, build_model, SETTINGS, SEED, work_of=liar)
    honest, lie = (metrics_of(a(asked, context(1))) for a in (app(), lying))
    assert lie["received-loss"] == pytest.approx(10 * honest["received-loss"])
    assert lie["received-confidence"] == pytest.approx(honest["received-confidence"] / 10)


def test_a_reply_depends_on_the_round_and_not_on_what_the_app_did_before():
    used = app()
    used(message(0, model_seed=5), context(0))
    first = used(message(1), context(1))
    kept = {name: values.copy() for name, values in arrays_of(first).items()}
    used(message(2, model_seed=6), context(2))
    fresh = app()(message(1), context(1))
    for name, values in arrays_of(fresh).items():
        np.testing.assert_array_equal(arrays_of(first)[name], values)
        np.testing.assert_array_equal(kept[name], values)
    later = app()(message(1, server_round=2), context(1))
    assert not np.array_equal(arrays_of(later)["weight"], arrays_of(fresh)["weight"])


def test_the_received_arrays_are_not_written_to():
    received = message(1)
    before = {name: values.copy() for name, values in arrays_of(received).items()}
    app()(received, context(1))
    for name, values in arrays_of(received).items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize("config", [{}, {"report-loss": True}])
def test_a_cohort_answers_as_its_clients_would_one_by_one(config):
    clients = [2, 0, 1]
    messages, contexts = [message(c, **config) for c in clients], [context(c) for c in clients]
    together = app(cohort=3).train_many(messages, contexts)
    for client, received, reply in zip(clients, messages, together, strict=True):
        alone = app()(message(client, **config), context(client))
        assert arrays_of(reply).keys() == arrays_of(alone).keys()
        for name, values in arrays_of(alone).items():
            np.testing.assert_allclose(arrays_of(reply)[name], values, rtol=0, atol=1e-5)
        assert metrics_of(reply).keys() == metrics_of(alone).keys()
        for name, value in metrics_of(alone).items():
            assert metrics_of(reply)[name] == pytest.approx(value, abs=1e-5)
        assert metrics_of(reply)["num-examples"] == SIZES[client]
        assert reply.metadata.src_node_id == received.metadata.dst_node_id == client


def test_a_cohort_sends_what_it_does_not_train_as_well():
    def with_buffer() -> nn.Module:
        model = build_model()
        model.register_buffer("scale", torch.tensor([2.0]))
        return model

    received = {**build_model(9).state_dict(), "scale": torch.tensor([5.0])}
    content = RecordDict(
        {"arrays": ArrayRecord(received), "config": ConfigRecord({"server-round": 1})}
    )
    messages = [Message(content, dst_node_id=c, message_type=MessageType.TRAIN) for c in (0, 1)]
    cohort = ShardClientApp(shard_of, with_buffer, SETTINGS, SEED, cohort=2)
    for reply in cohort.train_many(messages, [context(0), context(1)]):
        assert list(arrays_of(reply)) == ["weight", "bias", "scale"]
        assert arrays_of(reply)["scale"].tolist() == [5.0]


def test_a_model_of_another_shape_is_refused_by_name():
    wrong = message(1)
    wrong.content["arrays"] = ArrayRecord({"weight": torch.zeros(2, 2), "bias": torch.zeros(3)})
    with pytest.raises(RuntimeError, match="weight"):
        app()(wrong, context(1))


SLOWER = replace(SETTINGS, lr=0.1, batch_size=2)


def attacker(client: int, server_round: int, learnt: object) -> Work | None:
    """Clients 1 and 2 attack from round 2 on, each in its own way."""
    if client == 0:
        return None
    if server_round == 1:
        return Work(shard_of(client), SETTINGS, keeps_received=client == 2)
    if client == 1:
        return Work(shard_of(0), SLOWER, ProjectedDescent(0.01), twin=shard_of(1))
    return Work(shard_of(2), SETTINGS, Neurotoxin(share=0.4), keeps_received=True)


def attacking(cohort: int = 1) -> ShardClientApp:
    return ShardClientApp(shard_of, build_model, SETTINGS, SEED, cohort, attacker)


def test_an_attacker_trains_on_its_own_terms_in_its_rounds_alone():
    honest = app()(message(1), context(1))
    before = attacking()(message(1), context(1))
    for name, values in arrays_of(honest).items():
        np.testing.assert_array_equal(arrays_of(before)[name], values)
    reply = attacking()(message(1, server_round=2), context(1))
    assert metrics_of(reply)["num-examples"] == SIZES[0]
    start = build_model(9).state_dict()
    moved = [arrays_of(reply)[name] - value.numpy() for name, value in start.items()]
    assert np.sqrt(sum((m**2).sum() for m in moved)) == pytest.approx(0.01, rel=1e-4)


def test_a_clean_twin_comes_along_trained_as_its_attacker_trains():
    reply = attacking()(message(1, server_round=2), context(1))
    expected = build_model(9)
    train(expected, shard_of(1), SLOWER, generator(SEED, Purpose.TRAINING, 2, 1))
    twin = reply.content.array_records[CLEAN_ARRAYS]
    for name, value in expected.state_dict().items():
        np.testing.assert_array_equal(twin[name].numpy(), value.numpy())


def test_an_attacker_remembers_the_model_of_its_last_round():
    node, used = context(2), attacking()
    used(message(2, server_round=1, model_seed=5), node)
    used(message(2, server_round=2, model_seed=9), node)
    told, received = node.state.array_records[LAST_RECEIVED], build_model(9).state_dict()
    assert all(np.array_equal(told[name].numpy(), received[name]) for name in received)


def test_what_honest_clients_write_is_learnt_on_clean_data():
    def work(client: int, server_round: int, learnt: object) -> Work:
        return Work(shard_of(0), SETTINGS, Neurotoxin(share=0.4))  # poisoned: another's shard

    poisoned = ShardClientApp(shard_of, build_model, SETTINGS, SEED, work_of=work)
    reply = arrays_of(poisoned(message(2, model_seed=9), context(2)))
    start = build_model(9).state_dict()
    model, own = build_model(9), shard_of(2)
    F.cross_entropy(model(own.inputs), own.labels).backward()
    stood = [torch.from_numpy(reply[name]) == value for name, value in start.items()]
    kept = torch.cat([mask.flatten() for mask in stood])
    size = torch.cat([p.grad.abs().flatten() for p in model.parameters() if p.grad is not None])
    assert int(kept.sum()) == 6
    assert size[kept].min() > size[~kept].max()


def test_attackers_in_a_cohort_answer_as_they_would_one_by_one():
    clients, nodes = [0, 1, 2], [context(c) for c in (0, 1, 2)]
    both = attacking(cohort=3)
    both.train_many([message(c, model_seed=5) for c in clients], nodes)
    together = both.train_many([message(c, server_round=2) for c in clients], nodes)
    for client, reply in zip(clients, together, strict=True):
        one, node = attacking(), context(client)
        one(message(client, model_seed=5), node)
        alone = one(message(client, server_round=2), node)
        assert list(reply.content.array_records) == list(alone.content.array_records)
        for key, record in alone.content.array_records.items():
            for name, array in record.items():
                other = reply.content.array_records[key][name].numpy()
                np.testing.assert_allclose(other, array.numpy(), rtol=0, atol=1e-5)
        assert metrics_of(reply)["num-examples"] == metrics_of(alone)["num-examples"]


LOCAL = {
    "ditto": Ditto(1.0),
    "jtt": ExampleJtt(1, 2, 0.9),
    "group_dro": ExampleGroupDro(0.5),
    "worker_momentum": WorkerMomentum(0.5),
}


@pytest.mark.parametrize("name", LOCAL)
def test_a_method_inside_a_client_lasts_over_rounds_and_does_the_same_in_a_cohort(name):
    def answers(together: bool) -> tuple[dict, RecordDict]:
        own = ShardClientApp(shard_of, build_model, SETTINGS, SEED, cohort=3, local=LOCAL[name])
        contexts = [context(client) for client in SIZES]
        replies = []
        for round_ in (1, 2):
            asked = [message(client, server_round=round_) for client in SIZES]
            if together:
                replies = own.train_many(asked, contexts)
            else:
                replies = [own(m, c) for m, c in zip(asked, contexts, strict=True)]
        # Copies of an example are no more examples: a client does not weigh more for them.
        assert [metrics_of(reply)["num-examples"] for reply in replies] == list(SIZES.values())
        return arrays_of(replies[1]), contexts[1].state

    (alone, kept), (cohort, kept_too) = answers(together=False), answers(together=True)
    assert list(alone) == list(cohort)
    for array, values in alone.items():
        np.testing.assert_allclose(cohort[array], values, rtol=0, atol=1e-5)
    assert kept.array_records.keys() == kept_too.array_records.keys() != set()
    for record, arrays in kept.array_records.items():
        for array, values in arrays.items():
            other = kept_too.array_records[record][array].numpy()
            np.testing.assert_allclose(other, values.numpy(), rtol=0, atol=1e-5)
    plain = app()(message(1, server_round=2), context(1))
    same = all(np.array_equal(alone[array], v) for array, v in arrays_of(plain).items())
    # Ditto sends FedAvg's model; the one group has all the weight.
    assert same == (name in {"ditto", "group_dro"})


class Noting:
    """Notes what it is told, and keeps something in the first round alone."""

    def __init__(self) -> None:
        self.told = []

    def lesson(self, told) -> Lesson:
        self.told.append((told.model.training, list(told.memory), told.rng.random()))
        kept = {"one": torch.ones(1)} if told.round_ == 1 else {}
        return Lesson(told.shard, kept=lambda: kept)


def test_what_a_method_inside_a_client_draws_and_recalls_is_its_client_s_own():
    def told(*clients: int) -> list:
        method, there = Noting(), context(1)
        own = ShardClientApp(shard_of, build_model, SETTINGS, SEED, local=method)
        for round_ in (1, 2, 3):
            for client in clients:
                own(message(client, server_round=round_), there if client == 1 else context(client))
        return method.told

    alone = told(1)
    assert told(0, 1)[1::2] == alone
    assert [(training, kept) for training, kept, _ in alone] == [
        (False, []),
        (False, ["one"]),
        (False, []),
    ]
    assert len({drawn for *_, drawn in told(0, 1)}) == 6


class Rebinding:
    """Puts others in the place of trained parameters."""

    def lesson(self, told) -> Lesson:
        return Lesson(told.shard, revise=lambda received, trained: trained.update(received))


def test_what_is_sent_is_revised_in_place_or_not_at_all():
    # Else a cohort would send its rows, whatever took their place.
    own = ShardClientApp(shard_of, build_model, SETTINGS, SEED, local=Rebinding())
    with pytest.raises(AttributeError, match="mappingproxy"):
        own(message(1), context(1))


def test_with_worker_momentum_a_client_sends_an_average_of_its_updates():
    received = {round_: build_model(round_).state_dict() for round_ in (1, 2, 4)}
    averaging = ShardClientApp(shard_of, build_model, SETTINGS, SEED, local=WorkerMomentum(0.75))
    plain, there = app(), context(1)
    average: dict[str, np.ndarray] = {}
    for round_, before in received.items():
        update = {
            name: value - before[name].numpy()
            for name, value in arrays_of(plain(message(1, round_, round_), context(1))).items()
        }
        sent = arrays_of(averaging(message(1, round_, round_), there))
        for name, u in update.items():
            average[name] = 0.75 * average[name] + 0.25 * u if name in average else u
        for name, m in average.items():
            np.testing.assert_allclose(sent[name] - before[name].numpy(), m, rtol=0, atol=1e-6)


def test_a_personal_model_goes_on_where_it_stopped_and_is_not_sent():
    own = ShardClientApp(shard_of, build_model, SETTINGS, SEED, local=Ditto(0.0))
    there = context(1)
    for round_ in (1, 2):
        reply = own(message(1, server_round=round_), there)
    expected = build_model(9)  # without a pull it is trained alone from the first received one
    for round_ in (1, 2):
        train(expected, shard_of(1), SETTINGS, generator(SEED, Purpose.TRAINING, round_, 1))
    personal = there.state.array_records["personal"]
    for name, value in expected.state_dict().items():
        np.testing.assert_array_equal(personal[name].numpy(), value.numpy())
    assert set(reply.content.array_records) == {"arrays"}
