"""The Flower strategy, with replies made by hand."""

import math
import random
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Bulyan, FedAvg, Strategy

from fl_testbed.engine.flower_internals import become_server
from strategies.aggregation import (
    Aggregate,
    TooFewClientsError,
    centred_clipping,
    coordinate_median,
    deepsight,
    flare,
    fltrust,
    foolsgold,
    k_loss,
    krum,
    loss_rejection,
    mean,
    multi_krum,
    norm_clipping,
    weak_dp,
)
from strategies.flower_arrays import record_of
from strategies.memory import recall, remember
from strategies.observed import Observed
from strategies.oracle import Oracle
from strategies.pipeline import Pipeline
from strategies.pre_aggregation import clipping, nearest_neighbour_mixing
from strategies.reweighting import agnostic, jtt
from strategies.robust import RobustFedAvg
from strategies.running_sum import server_bytes
from strategies.server_optimizers import sgd

become_server()

START = {"weight": np.array([[1.0, 2.0]], np.float32), "bias": np.array([3.0], np.float32)}


class Nodes(Grid):
    """A grid that only knows who is there."""

    def __init__(self, ids: Iterable[int]) -> None:
        self.ids = list(ids)

    def get_node_ids(self) -> list[int]:
        return self.ids

    def set_run(self, run_id):
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, *arguments, **more):
        raise NotImplementedError

    def push_messages(self, messages):
        raise NotImplementedError

    def pull_messages(self, message_ids):
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        raise NotImplementedError


def strategy_of(rule: Callable = mean, **arguments) -> RobustFedAvg:
    settings = {"fraction_train": 1.0, "min_train_nodes": 1, "min_available_nodes": 1}
    return RobustFedAvg(rule, **settings, **arguments)


def asked(
    strategy: Strategy, nodes: Iterable[int], round_: int = 1, start: dict | None = None
) -> list[Message]:
    """Return the round's messages to the nodes, as they would be sent."""
    record = record_of(START if start is None else start)
    messages = list(strategy.configure_train(round_, record, ConfigRecord(), Nodes(nodes)))
    for number, message in enumerate(messages):
        message.metadata.__dict__["_message_id"] = str(number)
    return messages


def reply(message: Message, arrays: dict | ArrayRecord, **metrics) -> Message:
    record = record_of(arrays) if isinstance(arrays, dict) else arrays
    numbers = {"num-examples": 10, **{k.replace("_", "-"): v for k, v in metrics.items()}}
    content = RecordDict({"arrays": record, "metrics": MetricRecord(numbers)})
    return Message(content, reply_to=message)


def moved(message: Message, by: float, **metrics) -> Message:
    """Return the reply of a client that adds ``by`` to every parameter."""
    return reply(
        message, {name: values + np.float32(by) for name, values in START.items()}, **metrics
    )


def parameters(record: ArrayRecord | None) -> dict[str, list]:
    assert record is not None
    return {name: array.numpy().tolist() for name, array in record.items()}


def statuses(strategy: RobustFedAvg) -> list[str]:
    assert strategy.ledger is not None
    return [entry.status for entry in strategy.ledger.clients]


def weights(strategy: RobustFedAvg) -> list[float]:
    assert strategy.ledger is not None
    return [entry.weight for entry in strategy.ledger.clients]


def test_the_new_model_is_the_old_one_plus_the_aggregate():
    strategy = strategy_of()
    a, b = asked(strategy, [1, 2])
    arrays, _ = strategy.aggregate_train(1, [moved(a, 1.0), moved(b, 3.0)])
    assert parameters(arrays) == {"weight": [[3.0, 4.0]], "bias": [5.0]}


def test_clients_are_addressed_and_recorded_in_the_order_of_their_ids():
    strategy = strategy_of()
    messages = asked(strategy, [9, 4, 7])
    assert [message.metadata.dst_node_id for message in messages] == [4, 7, 9]
    four, seven, nine = messages
    strategy.aggregate_train(1, [moved(nine, 1.0), moved(four, 2.0), moved(seven, 3.0)])
    assert strategy.ledger is not None
    assert [entry.client for entry in strategy.ledger.clients] == [4, 7, 9]


def test_the_order_in_which_replies_arrive_does_not_change_a_bit():
    results = []
    for order in ([0, 1, 2], [2, 0, 1]):
        strategy = strategy_of()
        messages = asked(strategy, [1, 2, 3])
        replies = [moved(m, by) for m, by in zip(messages, (0.1, 0.7, 1e-3), strict=True)]
        results.append(parameters(strategy.aggregate_train(1, [replies[i] for i in order])[0]))
    assert results[0] == results[1]


def test_ids_of_64_bits_without_a_sign_are_accepted():
    strategy = strategy_of(reweight=partial(agnostic, step_size=1.0))
    for round_ in (1, 2):
        a, b = asked(strategy, [2**64 - 5, 3], round_)
        strategy.aggregate_train(
            round_, [moved(a, 1, received_loss=0.0), moved(b, 1, received_loss=math.log(3))]
        )
    assert weights(strategy) == pytest.approx([0.1, 0.9])  # b and a: sorted, and remembered


def corrupt(data: bytes) -> Array:
    return Array(dtype="float32", shape=(1, 2), stype="numpy.ndarray", data=data)


def with_weight(array: Array) -> ArrayRecord:
    record = record_of(START)
    record["weight"] = array
    return record


FILE = Array.from_numpy_ndarray(START["weight"]).data
BAD_ARRAYS = {
    "not finite": [
        {**START, "bias": np.array([np.nan], np.float32)},
        {**START, "bias": np.array([np.inf], np.float32)},
        {**START, "bias": np.array([-np.inf], np.float32)},
        {**START, "bias": np.array([1e300])},  # infinite in the model's own type
    ],
    r"weight has shape \[2, 1\], needs \[1, 2\]": [
        {**START, "weight": np.zeros((2, 1), np.float32)}
    ],
    r"weight has shape \[\], needs": [{**START, "weight": np.zeros((), np.float32)}],
    "missing bias": [{"weight": START["weight"]}, {}],
    "unknown extra": [{**START, "extra": np.zeros(1, np.float32)}],
    "missing bias, unknown bais": [{"weight": START["weight"], "bais": START["bias"]}],
    "bias holds complex64, not real numbers": [{**START, "bias": np.zeros(1, np.complex64)}],
    "bias holds bool, not real numbers": [{**START, "bias": np.zeros(1, bool)}],
    "bias holds <U3, not real numbers": [{**START, "bias": np.array(["abc"])}],
    "weight is not the .npy file that it claims to be": [
        with_weight(corrupt(b"")),
        with_weight(corrupt(b"PK\x03\x04 an archive")),
        with_weight(corrupt(b"\x93NUMPY")),
        with_weight(corrupt(b"\x93NUMPY\x01\x00\x76\x00" + b"{" * 118 + bytes(8))),
        with_weight(corrupt(FILE[:-4])),
        with_weight(corrupt(FILE + bytes(4))),
        with_weight(corrupt(FILE.replace(b"(1, 2)", b"(9, 9)"))),
        with_weight(Array(dtype="(", shape=(1, 2), stype="numpy.ndarray", data=FILE)),
        with_weight(Array(dtype="object", shape=(1, 2), stype="numpy.ndarray", data=FILE)),
        with_weight(Array(dtype="float32", shape=(1, 2), stype="pickle", data=FILE)),
    ],
}


@pytest.mark.parametrize(
    ("reason", "arrays"),
    [(reason, arrays) for reason, kinds in BAD_ARRAYS.items() for arrays in kinds],
)
def test_arrays_that_cannot_be_used_are_recorded_and_left_out(reason, arrays):
    strategy = strategy_of()
    a, b, c = asked(strategy, [1, 2, 3])
    result, metrics = strategy.aggregate_train(1, [moved(a, 1.0), reply(b, arrays), moved(c, 3.0)])
    assert parameters(result) == {"weight": [[3.0, 4.0]], "bias": [5.0]}
    assert statuses(strategy)[1].startswith("rejected: ")
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(statuses(strategy)[1])
    assert weights(strategy) == [0.5, 0.0, 0.5]
    assert metrics is not None
    assert dict(metrics) == {"n-usable": 2, "n-unusable": 1}


def test_a_rejected_client_keeps_its_share_of_the_prior():
    strategy = strategy_of()
    a, b = asked(strategy, [1, 2])
    strategy.aggregate_train(1, [moved(a, 1.0), moved(b, math.nan)])
    assert strategy.ledger is not None
    assert [entry.prior_weight for entry in strategy.ledger.clients] == [0.5, 0.5]
    assert weights(strategy) == [1.0, 0.0]


def test_an_error_reply_is_a_failure_and_takes_no_share():
    strategy = strategy_of()
    a, b = asked(strategy, [1, 2])
    failed = Message(Error(code=0, reason="out of memory"), reply_to=b)
    result, _ = strategy.aggregate_train(1, [moved(a, 1.0), failed])
    assert parameters(result)["bias"] == [4.0]
    assert statuses(strategy) == ["ok", "failed: out of memory"]
    assert strategy.ledger is not None
    assert strategy.ledger.clients[0].prior_weight == 1.0
    assert math.isnan(strategy.ledger.clients[1].prior_weight)
    assert math.isnan(weights(strategy)[1])


def test_no_reply_is_a_failure():
    strategy = strategy_of()
    a, _ = asked(strategy, [1, 2])
    strategy.aggregate_train(1, [moved(a, 1.0)])
    assert statuses(strategy) == ["ok", "failed: no reply"]


def test_only_the_first_usable_reply_of_a_client_counts():
    strategy = strategy_of()
    a, b = asked(strategy, [1, 2])
    replies = [moved(a, 1.0), moved(b, 3.0), moved(a, 100.0)]
    result, _ = strategy.aggregate_train(1, replies)
    assert parameters(result)["bias"] == [5.0]


def test_a_reply_from_a_client_that_was_not_asked_is_ignored():
    strategy = strategy_of()
    stranger = asked(strategy, [7])[0]
    (a,) = asked(strategy, [1])
    result, _ = strategy.aggregate_train(1, [moved(a, 1.0), moved(stranger, 100.0)])
    assert parameters(result)["bias"] == [4.0]
    assert statuses(strategy) == ["ok"]


def test_a_reply_without_arrays_or_with_two_records_is_rejected():
    strategy = strategy_of()
    a, b, c = asked(strategy, [1, 2, 3])
    empty = Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=b)
    double = RecordDict({"one": record_of(START), "two": record_of(START)})
    strategy.aggregate_train(1, [moved(a, 1.0), empty, Message(double, reply_to=c)])
    assert statuses(strategy)[1:] == [
        "rejected: needs one ArrayRecord, got 0",
        "rejected: needs one ArrayRecord, got 2",
    ]


def test_a_huge_update_is_the_rules_business_not_the_checks():
    strategy = strategy_of(partial(krum, n_malicious=1))
    messages = asked(strategy, range(5))
    replies = [moved(m, by) for m, by in zip(messages, (1e30, 1, 1.5, 2, 3), strict=True)]
    result, _ = strategy.aggregate_train(1, replies)
    assert statuses(strategy) == ["ok"] * 5
    assert weights(strategy)[0] == 0
    assert parameters(result)["bias"] == [4.5]
    assert strategy.ledger is not None
    assert strategy.ledger.clients[0].update_norm == pytest.approx(math.sqrt(3) * 1e30)


def test_arrays_in_column_order_are_read_as_well():
    start = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
    strategy = strategy_of()
    (a,) = asked(strategy, [1], start=start)
    by_columns = with_weight(Array.from_numpy_ndarray(np.asfortranarray(start["weight"] + 1)))
    del by_columns["bias"]
    result, _ = strategy.aggregate_train(1, [reply(a, by_columns)])
    assert parameters(result) == {"weight": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]}


def test_other_number_types_are_converted():
    strategy = strategy_of()
    a, b = asked(strategy, [1, 2])
    wide = {name: values.astype(np.float64) + 2 for name, values in START.items()}
    result, _ = strategy.aggregate_train(1, [moved(a, 0.0), reply(b, wide)])
    assert parameters(result)["bias"] == [4.0]
    assert result is not None
    assert result["bias"].numpy().dtype == np.float32


@pytest.mark.parametrize(("buffer", "told"), [("mean", ["mean"]), ("norm.running_mean", None)])
def test_rules_see_no_buffers_which_follow_the_weights(buffer, told):
    start = {buffer: np.zeros(1, np.float32), "weight": np.zeros(2, np.float32)}
    seen = {}

    def last_two(updates, received, layers):
        seen.update(rows=updates.tolist(), received=received.tolist(), layers=layers)
        weights = torch.tensor([0.0, 0.25, 0.75])
        return Aggregate(weights @ updates, weights, torch.zeros(3))

    strategy = strategy_of(last_two, buffers=told)
    sent = [(900.0, [1.0, 0.0]), (4.0, [0.0, 4.0]), (8.0, [0.0, 8.0])]
    _, *messages = asked(strategy, range(4), start=start)  # the first client does not answer
    replies = [
        reply(message, {buffer: np.float32([mean]), "weight": np.float32(weight)})
        for message, (mean, weight) in zip(messages, sent, strict=True)
    ]
    result, _ = strategy.aggregate_train(1, replies)
    assert parameters(result) == {buffer: [7.0], "weight": [0.0, 7.0]}
    assert seen["rows"] == [weight for _, weight in sent]
    assert (seen["received"], seen["layers"]) == ([0.0, 0.0], {"weight": slice(0, 2)})
    assert strategy.ledger is not None
    assert [entry.update_norm for entry in strategy.ledger.clients[1:]] == [1.0, 4.0, 8.0]


def test_a_buffer_that_is_no_number_is_rejected_with_its_update():
    start = {"mean": np.zeros(1, np.float32), "weight": np.zeros(2, np.float32)}
    strategy = strategy_of(buffers=["mean"])
    (message,) = asked(strategy, [1], start=start)
    strategy.aggregate_train(1, [reply(message, {**start, "mean": np.float32([np.inf])})])
    assert statuses(strategy) == ["rejected: update is not finite"]


def test_integer_arrays_of_the_model_are_kept_from_the_server():
    start = {**START, "steps": np.array(7)}
    strategy = strategy_of()
    (a,) = asked(strategy, [1], start=start)
    result, _ = strategy.aggregate_train(1, [reply(a, {**START, "steps": np.array(99)})])
    assert parameters(result)["steps"] == 7


def test_a_claim_of_many_examples_counts_only_where_it_is_believed():
    believed = strategy_of(weight_by="examples")
    a, b = asked(believed, [1, 2])
    believed.aggregate_train(1, [moved(a, 0, num_examples=10), moved(b, 0, num_examples=990)])
    assert weights(believed) == [0.01, 0.99]

    checked = strategy_of(weight_by="examples", n_examples={1: 10, 2: 30}.__getitem__)
    a, b = asked(checked, [1, 2])
    checked.aggregate_train(1, [moved(a, 0, num_examples=10), moved(b, 0, num_examples=990)])
    assert weights(checked) == [0.25, 0.75]


@pytest.mark.parametrize("claim", [-5, math.nan, math.inf, 1e300, 10**400])
def test_a_claim_that_is_no_count_is_rejected(claim):
    strategy = strategy_of(weight_by="examples")
    a, b = asked(strategy, [1, 2])
    strategy.aggregate_train(1, [moved(a, 1.0), moved(b, 1.0, num_examples=claim)])
    assert statuses(strategy)[1].startswith("rejected: needs num-examples >= 0")
    assert weights(strategy) == [1.0, 0.0]
    assert strategy.ledger is not None
    assert [entry.prior_weight for entry in strategy.ledger.clients] == [1.0, 0.0]


@pytest.mark.parametrize("claim", [-5, math.nan, math.inf, 10**400])
def test_whoever_watches_another_strategy_survives_a_claim_that_is_no_count(claim):
    watched = Observed(strategy_of())
    a, b = asked(watched, [1, 2])
    watched.aggregate_train(1, [moved(a, 1.0, num_examples=7), moved(b, 3.0, num_examples=claim)])
    assert watched.ledger is not None
    assert [client.n_examples for client in watched.ledger.clients] == [7, 0]


@pytest.mark.parametrize(
    ("weight_by", "claims", "priors"),
    [
        ("examples", (30, 10), (0.75, 0.25, 0)),
        ("examples", (0, 0), (1 / 3, 1 / 3, 1 / 3)),
        ("clients", (30, 10), (1 / 3, 1 / 3, 1 / 3)),
    ],
)
def test_of_watched_clients_it_is_said_what_they_sent(weight_by, claims, priors):
    watched = Observed(strategy_of(), weight_by=weight_by)
    (stranger,) = asked(watched, [6])
    a, b, c, d, _ = asked(watched, [1, 2, 3, 4, 5])
    beyond = record_of({**START, "bias": np.array([1e300])})
    replies = [
        moved(a, 1.0, num_examples=claims[0], train_loss=0.5),
        moved(b, 2.0, num_examples=claims[1]),
        Message(Error(1, "no battery"), reply_to=c),
        Message(RecordDict({"arrays": beyond}), reply_to=d),
        moved(stranger, 1.0),
    ]
    watched.aggregate_train(1, replies)
    assert watched.ledger is not None
    told = [
        (entry.status, entry.prior_weight, entry.train_loss, entry.update_norm)
        for entry in watched.ledger.clients
    ]
    nan, root = math.nan, math.sqrt(3)
    first, second, fourth = priors
    expected = [
        ("ok", first, 0.5, root),
        ("ok", second, nan, 2 * root),
        ("failed: no battery", nan, nan, nan),
        ("unmeasured: update is not finite", fourth, nan, math.inf),
        ("failed: no reply", nan, nan, nan),
    ]
    assert [entry[0] for entry in told] == [entry[0] for entry in expected]
    np.testing.assert_allclose([e[1:] for e in told], [e[1:] for e in expected], rtol=1e-6)


def test_what_a_watched_strategy_carries_over_passes_through():
    inner, other = strategy_of(), strategy_of()
    inner.memory = {"rule.centre": torch.ones(3)}
    Observed(other).load_state_dict(Observed(inner).state_dict())
    assert torch.equal(other.memory["rule.centre"], torch.ones(3))
    cannot = Observed(FedAvg())
    assert cannot.state_dict() == {}
    with pytest.raises(TypeError, match="FedAvg lacks state_dict"):
        cannot.load_state_dict({})


def test_of_a_watched_reply_without_arrays_it_is_said_that_there_are_none():
    watched = Observed(strategy_of())
    a, b = asked(watched, [1, 2])
    bare = Message(RecordDict({"metrics": MetricRecord({"num-examples": 10})}), reply_to=b)
    watched.aggregate_train(1, [moved(a, 1.0), bare])
    assert watched.ledger is not None
    told = [client.status for client in watched.ledger.clients]
    assert told == ["ok", "unmeasured: needs one ArrayRecord, got 0"]


@pytest.mark.parametrize(("buffer", "told"), [("mean", ["mean"]), ("norm.running_mean", None)])
def test_who_was_heard_is_measured_without_buffers_and_counters(buffer, told):
    start = {"count": np.array(7), buffer: np.zeros(1, np.float32), "weight": np.zeros(2)}
    watched = Observed(FedAvg(min_train_nodes=1, min_available_nodes=1), buffers=told)
    for round_ in (1, 2):
        sent = [{"count": np.array(99), buffer: [900.0], "weight": row} for row in np.eye(2)]
        replies = [
            reply(message, {name: np.asarray(values) for name, values in arrays.items()})
            for message, arrays in zip(asked(watched, [1, 2], round_, start), sent, strict=True)
        ]
        result, _ = watched.aggregate_train(round_, replies)
        assert parameters(result) == {"count": 99.0, buffer: [900.0], "weight": [0.5, 0.5]}
        start["count"] = np.array(99.0)  # averaged, it is a float
        assert watched.ledger is not None
        assert [entry.update_norm for entry in watched.ledger.clients] == [1.0, 1.0]
        assert watched.ledger.residual < 1e-6


@pytest.mark.parametrize("rejected", [0, 10])
def test_clients_that_claim_no_examples_count_equally(rejected):
    strategy = strategy_of(weight_by="examples")
    a, b, c = asked(strategy, [1, 2, 3])
    claims = ((a, 1, 0), (b, 3, 0), (c, math.nan, rejected))
    replies = [moved(message, by, num_examples=n) for message, by, n in claims]
    result, _ = strategy.aggregate_train(1, replies)
    assert parameters(result)["bias"] == [5.0]


@pytest.mark.parametrize("weight_by", ["clients", "examples"])
@pytest.mark.parametrize("rule", [mean, partial(norm_clipping, max_norm=4.0)])
def test_rows_that_are_too_many_to_keep_are_added_up_in_any_order(rule, weight_by):
    def outcome(order: Iterable[int], largest_matrix: float) -> tuple[dict, list]:
        strategy = strategy_of(rule, weight_by=weight_by, keep_mib=largest_matrix)
        messages = asked(strategy, range(6))
        moves = [0.3, math.nan, 1.7, None, 5.1, 0.9]  # client 1 is rejected, client 3 fails
        replies = [
            Message(Error(1, "no battery"), reply_to=message)
            if by is None
            else moved(message, by, num_examples=3 + number)
            for number, (message, by) in enumerate(zip(messages, moves, strict=True))
        ]
        result, _ = strategy.aggregate_train(1, [replies[place] for place in order])
        assert strategy.keeps_running_sum(6, 3) == (largest_matrix == 0)
        assert strategy.ledger is not None
        return parameters(result), [vars(entry) for entry in strategy.ledger.clients]

    kept, told = outcome(range(6), 1.0)
    for order in (range(6), (5, 2, 4, 1, 3, 0), (3, 4, 0, 5, 1, 2)):
        summed, said = outcome(order, 0.0)
        assert summed == outcome(range(6), 0.0)[0]  # to the last bit
        for name, values in kept.items():
            np.testing.assert_allclose(summed[name], values, rtol=1e-6)
        for entry, other in zip(said, told, strict=True):
            assert math.isnan(entry["contribution"])  # the rows are gone
            assert math.isnan(other["contribution"]) == (other["status"] != "ok")
            assert entry["status"] == other["status"]
            assert entry == pytest.approx({**other, "contribution": math.nan}, nan_ok=True)


@pytest.mark.parametrize("loss", [None, math.nan, math.inf, -1.0, 1e300])
def test_a_missing_or_absurd_loss_is_rejected_where_losses_are_needed(loss):
    strategy = strategy_of(reweight=partial(agnostic, step_size=1.0))
    config = ConfigRecord()
    messages = list(strategy.configure_train(1, record_of(START), config, Nodes([1, 2])))
    assert config["report-loss"] is True
    for number, message in enumerate(messages):
        message.metadata.__dict__["_message_id"] = str(number)
    a, b = messages
    claim = {} if loss is None else {"received_loss": loss}
    strategy.aggregate_train(1, [moved(a, 1, received_loss=1.0), moved(b, 1, **claim)])
    assert statuses(strategy)[1].startswith("rejected: needs received-loss")


def test_too_few_usable_replies_skip_the_round_and_say_so():
    strategy = strategy_of(partial(krum, n_malicious=1))
    messages = asked(strategy, range(5))
    replies = [moved(m, 1.0) for m in messages[:4]]
    result, metrics = strategy.aggregate_train(1, replies)
    assert result is None
    assert strategy.ledger is not None
    assert "krum needs n >= 2f + 3 clients, got n=4" in strategy.ledger.skipped
    assert weights(strategy)[:4] == [0.0] * 4
    assert metrics is not None
    assert metrics["n-usable"] == 4


def test_a_round_without_any_usable_reply_is_skipped():
    strategy = strategy_of()
    (a,) = asked(strategy, [1])
    result, _ = strategy.aggregate_train(1, [moved(a, math.nan)])
    assert result is None
    assert strategy.ledger is not None
    assert strategy.ledger.skipped == "no client sent a usable reply"


def test_a_round_in_which_nobody_is_heard_says_so():
    strategy = strategy_of(fltrust, server_update=lambda arrays, server_round: arrays)
    a, b = asked(strategy, [1, 2])
    result, _ = strategy.aggregate_train(1, [moved(a, 1.0), moved(b, -1.0)])  # it moved nothing
    assert parameters(result) == parameters(record_of(START))
    assert strategy.ledger is not None
    assert strategy.ledger.skipped == "rule and lift leave nobody any weight"
    heard = strategy_of()
    heard.aggregate_train(1, [moved(m, 1.0) for m in asked(heard, [1])])
    assert heard.ledger is not None
    assert not heard.ledger.skipped


def test_too_few_usable_replies_stop_where_that_is_asked():
    strategy = strategy_of(partial(krum, n_malicious=1), on_too_few="stop")
    messages = asked(strategy, range(4))
    with pytest.raises(TooFewClientsError):
        strategy.aggregate_train(1, [moved(m, 1.0) for m in messages])


def test_the_ledger_holds_what_the_rule_said():
    strategy = strategy_of(partial(multi_krum, n_malicious=1, n_selected=2))
    messages = asked(strategy, range(5))
    # Three equal parameters: three times the squared gaps of 0, 1, 6, 9, 13.
    replies = [
        moved(m, by, train_loss=by) for m, by in zip(messages, (0, 1, 6, 9, 13), strict=True)
    ]
    strategy.aggregate_train(1, replies)
    assert strategy.ledger is not None
    entries = strategy.ledger.clients
    assert [entry.suspicion for entry in entries] == pytest.approx([111, 78, 102, 75, 195])
    assert [entry.weight for entry in entries] == [0, 0.5, 0, 0.5, 0]
    # The update is 5: pulls 0.5 · 1 · 5 and 0.5 · 9 · 5.
    assert [entry.contribution for entry in entries] == pytest.approx([0, 0.1, 0, 0.9, 0])
    assert [entry.train_loss for entry in entries] == [0, 1, 6, 9, 13]


def test_lift_then_filter_reports_weights_of_the_updates_that_clients_sent():
    strategy = strategy_of(reweight=partial(agnostic, step_size=1.0), order="lift_then_filter")
    a, b = asked(strategy, [1, 2])
    replies = [moved(a, 4, received_loss=0.0), moved(b, 8, received_loss=math.log(3))]
    result, _ = strategy.aggregate_train(1, replies)
    assert weights(strategy) == pytest.approx([0.25, 0.75])
    assert parameters(result)["bias"] == [10.0]


def test_the_servers_own_update_is_the_reference():
    def train(arrays: ArrayRecord, server_round: int) -> ArrayRecord:
        assert server_round == 4
        return record_of({name: a.numpy() + np.float32(2) for name, a in arrays.items()})

    strategy = strategy_of(fltrust, server_update=train)
    a, b = asked(strategy, [1, 2], round_=4)
    result, _ = strategy.aggregate_train(4, [moved(a, 50.0), moved(b, -50.0)])
    assert parameters(result) == {"weight": [[3.0, 4.0]], "bias": [5.0]}


@pytest.mark.parametrize(
    ("rule", "losses", "argument"),
    [
        (fltrust, "reported", "server_update"),
        (partial(loss_rejection, n_malicious=1), "reported", "server_evaluate"),
        (partial(k_loss, n_malicious=1), "measured", "server_evaluate"),
        (deepsight, "reported", "server_respond"),
        (flare, "reported", "server_represent"),
    ],
)
def test_a_rule_that_needs_the_server_s_help_says_what_to_pass(rule, losses, argument):
    with pytest.raises(TypeError, match=f"pass {argument}"):
        strategy_of(rule, losses=losses)


def losses_round(strategy: RobustFedAvg, round_: int, start: dict) -> ArrayRecord | None:
    a, b = asked(strategy, [1, 2], round_, start)
    moves = [{name: values + by for name, values in start.items()} for by in (1, 2)]
    replies = [
        reply(a, moves[0], received_loss=0.0),
        reply(b, moves[1], received_loss=math.log(3)),
    ]
    return strategy.aggregate_train(round_, replies)[0]


ODD_REPORTS: dict[str, dict] = {
    "another figure": {"num-examples": 10, "loss": 9.0, "extra": 1.0},
    "a figure less": {"num-examples": 10},
    "a list": {"num-examples": 10, "loss": [9.0]},
    "no count": {"loss": 9.0, "acc": 1.0},
    "no examples": {"num-examples": 0, "loss": 9.0},
    "a count that makes the sum 0": {"num-examples": -40, "loss": 9.0},
    "a loss that is no number": {"num-examples": 10, "loss": math.nan},
    "a count beyond every float": {"num-examples": 10**400, "loss": 9.0},
    "nothing": {},
}


@pytest.mark.parametrize("odd", ODD_REPORTS)
def test_an_odd_report_of_an_evaluation_is_left_out_of_the_mean(odd):
    strategy = strategy_of(min_evaluate_nodes=4)
    nodes = Nodes(range(4))
    messages = list(strategy.configure_evaluate(1, record_of(START), ConfigRecord(), nodes))
    for number, message in enumerate(messages):
        message.metadata.__dict__["_message_id"] = str(number)
    reports = [
        ODD_REPORTS[odd],
        {"num-examples": 30, "loss": 1.0},
        {"num-examples": 10, "loss": 3.0},
    ]
    replies = [
        Message(RecordDict({"metrics": MetricRecord(report)}), reply_to=message)
        for report, message in zip(reports, messages, strict=False)
    ]
    replies.append(Message(Error(code=0, reason="out of memory"), reply_to=messages[3]))
    assert strategy.aggregate_evaluate(1, iter(replies)) == {"loss": 1.5}
    assert strategy.aggregate_evaluate(1, [replies[3]]) is None


def test_what_clients_report_of_their_training_is_averaged_as_flower_does():
    def largest(records: list[RecordDict], weight: str) -> MetricRecord:
        assert weight == "num-examples"
        reports = [record.metric_records["metrics"] for record in records]
        return MetricRecord({"largest": max(float(r["train-loss"]) for r in reports)})

    for arguments, averages in (
        ({}, {"train-loss": 1.5}),
        ({"train_metrics_aggr_fn": largest}, {"largest": 3.0}),
        ({"averages_metrics": False}, {}),
    ):
        strategy = strategy_of(**arguments)
        a, b, c, d, _ = asked(strategy, [1, 2, 3, 4, 5])
        not_finite = reply(d, {**START, "bias": np.array([np.nan], np.float32)}, train_loss=9.0)
        replies = [
            moved(b, 1.0, train_loss=1.0, num_examples=30),
            moved(a, 1.0, train_loss=3.0),
            moved(c, 1.0, loss_of_training=9.0),
            not_finite,
        ]
        _, metrics = strategy.aggregate_train(1, iter(replies))
        assert metrics == {**averages, "n-usable": 3, "n-unusable": 2}


def test_whoever_reads_flowers_log_sees_who_was_left_out_and_that_nothing_moved(caplog):
    strategy = strategy_of(partial(krum, n_malicious=1))
    with caplog.at_level("INFO", logger="flwr"):
        (message,) = asked(strategy, [7])
        strategy.aggregate_train(1, [moved(message, math.nan)])
    assert "aggregate_train: 0 usable replies, 1 failed or rejected" in caplog.text
    assert "node 7: rejected: update is not finite" in caplog.text
    assert "round 1 moves nothing: no client sent a usable reply" in caplog.text


@pytest.mark.parametrize("what", ["aggregate_train", "aggregate_evaluate"])
def test_whoever_reads_flowers_log_sees_whose_metrics_are_in_no_average(caplog, what):
    strategy = strategy_of(weighted_by_key="n")
    a, b = asked(strategy, [1, 2])
    with caplog.at_level("WARNING", logger="flwr"):
        getattr(strategy, what)(1, [moved(a, 1.0, n=5), moved(b, 1.0)])
    (line,) = caplog.messages
    assert line.startswith(f"{what}: metrics of 1 clients (of 2) are in no average")
    assert "n > 0" in line


def test_whoever_reads_flowers_log_sees_that_a_watched_strategy_failed(caplog):
    watched = Observed(FedAvg(min_train_nodes=1, min_available_nodes=1, weighted_by_key="n"))
    (message,) = asked(watched, [1])
    with caplog.at_level("WARNING", logger="flwr"):
        watched.aggregate_train(1, [moved(message, 1.0)])
    assert "round 1 moves nothing: InconsistentMessageReplies: Missing required key" in caplog.text


def test_why_a_watched_strategy_returns_no_model_is_what_it_told_flowers_log(caplog):
    watched = Observed(Bulyan(num_malicious_nodes=1, min_train_nodes=1, min_available_nodes=1))
    (message,) = asked(watched, [1])
    watched.aggregate_train(1, [moved(message, 1.0)])
    assert watched.ledger is not None
    assert "returned no model: Insufficient replies" in watched.ledger.skipped
    assert not caplog.messages  # which is quiet, as it was


def test_flowers_log_says_what_the_server_does_before_a_run(caplog):
    lift = partial(agnostic, step_size=0.2)
    strategy = strategy_of(partial(krum, n_malicious=1), reweight=lift, optimize=sgd)
    with caplog.at_level("INFO", logger="flwr"):
        Observed(strategy).summary()
    for said in ("Observed: RobustFedAvg", "Rule: krum(n_malicious=1)", "Server optimizer: sgd()"):
        assert said in caplog.text
    assert "Reweighting (filter_then_lift): agnostic(step_size=0.2)" in caplog.text


def test_jtt_restarts_from_the_initial_model_after_its_warm_up():
    rule = partial(jtt, confidences=None, warm_up_rounds=2, n_flagged=1, factor=3.0)
    strategy = strategy_of(reweight=rule)
    first = losses_round(strategy, 1, START)
    assert first is not None
    second = losses_round(strategy, 2, {name: a.numpy() for name, a in first.items()})
    assert strategy.ledger is not None
    assert strategy.ledger.restarted
    assert parameters(second) == {"weight": [[1.0, 2.0]], "bias": [3.0]}
    losses_round(strategy, 3, START)
    assert not strategy.ledger.restarted
    assert weights(strategy) == pytest.approx([0.25, 0.75])


def test_a_strategy_restored_from_its_state_goes_on_as_if_never_interrupted():
    rule = partial(jtt, confidences=None, warm_up_rounds=2, n_flagged=1, factor=3.0)
    whole = strategy_of(reweight=rule)
    first = losses_round(whole, 1, START)
    assert first is not None
    now = {name: a.numpy() for name, a in first.items()}
    restored = strategy_of(reweight=rule)
    restored.load_state_dict({name: t.clone() for name, t in whole.state_dict().items()})
    for strategy in (whole, restored):
        second = losses_round(strategy, 2, now)
        assert parameters(second) == {"weight": [[1.0, 2.0]], "bias": [3.0]}
    assert restored.memory.keys() == whole.memory.keys()
    for name, value in whole.memory.items():
        assert torch.equal(restored.memory[name], value)


def test_a_fresh_strategy_has_nothing_to_carry():
    assert strategy_of().state_dict() == {}


def one_round(strategy: RobustFedAvg, round_: int, moves: Iterable[float]) -> dict[str, list]:
    messages = asked(strategy, range(len(list(moves))), round_)
    replies = [moved(message, by) for message, by in zip(messages, moves, strict=True)]
    return parameters(strategy.aggregate_train(round_, replies)[0])


def test_what_a_rule_carries_over_survives_a_checkpoint():
    rule = partial(centred_clipping, radius=1.0)
    whole = strategy_of(rule)
    one_round(whole, 1, (10.0, 4.0))
    state = whole.state_dict()
    assert "memory/rule.centre" in state
    restored = strategy_of(rule)
    restored.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
    assert one_round(restored, 2, (10.0, 4.0)) == one_round(whole, 2, (10.0, 4.0))
    assert one_round(strategy_of(rule), 2, (10.0, 4.0)) != one_round(whole, 2, (10.0, 4.0))


def test_a_server_optimizer_moves_the_model_and_goes_on_after_a_checkpoint():
    optimize = partial(sgd, lr=2.0, momentum=0.5)
    whole = strategy_of(optimize=optimize)
    assert one_round(whole, 1, (10.0, 4.0)) == {"weight": [[15.0, 16.0]], "bias": [17.0]}
    restored = strategy_of(optimize=optimize)
    restored.load_state_dict({name: t.clone() for name, t in whole.state_dict().items()})
    for strategy in (whole, restored):  # 7 + 7 / 2, twice
        assert one_round(strategy, 2, (10.0, 4.0)) == {"weight": [[22.0, 23.0]], "bias": [24.0]}
        assert weights(strategy) == [0.5, 0.5]


def test_a_server_optimizer_is_not_asked_where_nobody_is_heard():
    def nobody(updates):
        return mean(updates)._replace(update=0 * updates[0], weights=torch.zeros(len(updates)))

    strategy = strategy_of(optimize=partial(sgd, momentum=0.5))
    one_round(strategy, 1, (2.0, 2.0))
    heard, strategy.pipeline = strategy.pipeline, Pipeline(nobody)
    answered, _ = asked(strategy, range(2), 2)  # the other failed: its weight is unknown
    result, _ = strategy.aggregate_train(2, [moved(answered, 2.0)])
    assert parameters(result) == {"weight": [[1.0, 2.0]], "bias": [3.0]}
    strategy.pipeline = heard
    assert one_round(strategy, 3, (2.0, 2.0)) == {"weight": [[4.0, 5.0]], "bias": [6.0]}


def test_a_restart_forgets_where_a_server_optimizer_was_going():
    rule = partial(jtt, confidences=None, warm_up_rounds=2, n_flagged=1, factor=3.0)
    strategy = strategy_of(reweight=rule, optimize=partial(sgd, momentum=0.5))
    kept = []
    for round_ in (1, 2):
        losses_round(strategy, round_, START)
        kept.append([name for name in strategy.state_dict() if name.startswith("optimizer/")])
    assert kept == [["optimizer/velocity"], []]
    assert strategy.ledger is not None
    assert strategy.ledger.restarted


def test_a_rule_may_ask_for_the_received_model_and_where_its_layers_begin():
    seen = {}

    def asking(updates, received, layers):
        seen.update(received=received.tolist(), layers=layers)
        return mean(updates)

    one_round(strategy_of(asking), 1, (1.0, 1.0))
    assert seen["received"] == [1.0, 2.0, 3.0]
    assert seen["layers"] == {"weight": slice(0, 2), "bias": slice(2, 3)}


def test_updates_that_a_rule_remembers_are_not_those_of_the_next_round():
    def repeating(updates, clients, memory):
        before = recall(memory, "last", clients, default=0.0, shape=updates.shape[1:])
        kept = remember(memory, "last", clients, updates)
        return mean(before.float())._replace(memory=kept)

    strategy = strategy_of(repeating)
    one_round(strategy, 1, (10.0, 4.0))
    assert one_round(strategy, 2, (1.0, 1.0)) == {"weight": [[8.0, 9.0]], "bias": [10.0]}


def test_random_numbers_depend_on_the_seed_and_the_round_alone():
    rule = partial(weak_dp, max_norm=1.0, noise_std=1.0)
    used = strategy_of(rule, seed=3)
    one_round(used, 1, (0.0, 0.0))
    second = one_round(used, 2, (0.0, 0.0))
    assert second == one_round(strategy_of(rule, seed=3), 2, (0.0, 0.0))
    assert second != one_round(strategy_of(rule, seed=4), 2, (0.0, 0.0))
    assert second != one_round(strategy_of(rule, seed=3), 3, (0.0, 0.0))


def test_candidate_models_are_evaluated_as_whole_models():
    def evaluate(arrays: ArrayRecord) -> tuple[float, float, float]:
        assert arrays["weight"].numpy().shape == (1, 2)
        return 0.0, abs(float(arrays["bias"].numpy()[0]) - 3), 1.0  # best where it starts

    rule = partial(loss_rejection, n_malicious=1)
    strategy = strategy_of(rule, server_evaluate=evaluate)
    assert one_round(strategy, 1, (0.0, 2.0, 1.0, 9.0))["bias"] == [4.0]
    assert weights(strategy)[3] == 0


def believed(strategy: RobustFedAvg) -> list[float]:
    assert strategy.ledger is not None
    return [entry.believed_loss for entry in strategy.ledger.clients]


def test_measured_losses_are_those_of_each_client_s_updated_model():
    def evaluate(arrays: ArrayRecord) -> tuple[float, float, float]:
        return 0.0, float(arrays["bias"].numpy()[0]), 0.5

    lift = partial(agnostic, step_size=math.log(3))
    strategy = strategy_of(reweight=lift, losses="measured", server_evaluate=evaluate)
    config = ConfigRecord()
    messages = list(strategy.configure_train(1, record_of(START), config, Nodes([1, 2])))
    assert "report-loss" not in config
    for number, message in enumerate(messages):
        message.metadata.__dict__["_message_id"] = str(number)
    a, b = messages
    strategy.aggregate_train(1, [moved(a, 1.0, received_loss=9.0), moved(b, 2.0)])
    assert believed(strategy) == [4.0, 5.0]  # the bias begins at 3
    assert weights(strategy) == pytest.approx([0.25, 0.75])


def test_a_confidence_is_needed_only_where_somebody_goes_by_it():
    flags = {"warm_up_rounds": 1, "n_flagged": 1, "factor": 5.0, "flag_by": "confidence"}
    for rule, statuses_ in (
        (partial(jtt, **flags), ["rejected: needs received-confidence from 0 to 1, got nan"] * 2),
        (partial(agnostic, step_size=1.0), ["ok", "ok"]),
    ):
        strategy = strategy_of(reweight=rule)
        a, b = asked(strategy, [1, 2])
        strategy.aggregate_train(1, [moved(m, 1.0, received_loss=1.0) for m in (a, b)])
        assert statuses(strategy) == statuses_


def test_a_confidence_is_one_from_0_to_1():
    strategy = strategy_of(reweight=partial(agnostic, step_size=1.0))
    messages = asked(strategy, range(4))
    claims = [{"received_loss": 1.0, "received_confidence": p} for p in (1.0, 1.5, 0.0, -0.5)]
    strategy.aggregate_train(1, [moved(m, 1.0, **c) for m, c in zip(messages, claims, strict=True)])
    rejected = "rejected: needs received-confidence from 0 to 1, got "
    assert statuses(strategy) == ["ok", f"{rejected}1.5", "ok", f"{rejected}-0.5"]


def test_outputs_are_asked_of_whole_models_on_the_same_inputs():
    def respond(arrays: ArrayRecord, n_inputs: int, server_round: int) -> torch.Tensor:
        assert (n_inputs, server_round) == (5, 7)
        return torch.full((n_inputs, 2), float(arrays["bias"].numpy()[0]))

    def rule(updates, respond):
        seen = torch.stack([respond(update, 5).mean() for update in updates])
        return mean(updates)._replace(suspicion=seen)

    strategy = strategy_of(rule, server_respond=respond)
    one_round(strategy, 7, (0.0, 2.0))
    assert strategy.ledger is not None
    assert [entry.suspicion for entry in strategy.ledger.clients] == [3.0, 5.0]


def test_representations_are_asked_of_whole_models():
    def rule(updates, represent):
        seen = torch.stack([represent(update).mean() for update in updates])
        return mean(updates)._replace(suspicion=seen)

    strategy = strategy_of(
        rule, server_represent=lambda arrays: torch.from_numpy(arrays["bias"].numpy())
    )
    one_round(strategy, 7, (0.0, 2.0))
    assert strategy.ledger is not None
    assert [entry.suspicion for entry in strategy.ledger.clients] == [3.0, 5.0]


def test_pre_aggregations_run_before_the_rule():
    strategy = strategy_of(mean, pre_aggregate=[partial(clipping, max_norm=math.sqrt(3))])
    assert one_round(strategy, 1, (1.0, 30.0))["bias"] == pytest.approx([4.0])
    assert weights(strategy) == pytest.approx([30 / 31, 1 / 31])


@pytest.mark.parametrize(
    "arguments",
    [
        {"rule": coordinate_median},
        {"rule": norm_clipping},  # to the median norm, known when all are there
        {"pre_aggregate": [partial(clipping, max_norm=1.0)]},
        {"reweight": partial(agnostic, step_size=0.1)},
        {"oracle": Oracle({1}, {2}, removing="ideal")},
    ],
)
def test_what_needs_all_rows_keeps_them(arguments):
    strategy = strategy_of(**arguments, keep_mib=0.0)
    assert not strategy.keeps_running_sum(5, 3)
    assert server_bytes(strategy.pipeline, 5, 3, keep_mib=0.0) >= 4 * 5 * 3


@pytest.mark.parametrize(
    ("n_matrices", "arguments"),
    [
        (1, {"rule": coordinate_median, "pre_aggregate": [partial(clipping, max_norm=1.0)]}),
        (2, {"pre_aggregate": [partial(nearest_neighbour_mixing, n_malicious=1)]}),
        (2, {"rule": coordinate_median, "oracle": Oracle({1}, {2}, removing="shielded")}),
        (3, {"rule": foolsgold}),
    ],
)
def test_copies_of_the_updates_count_as_memory(n_matrices, arguments):
    strategy = strategy_of(**arguments)
    pairs = 5 * 8 * 5**2 if strategy.pipeline.compares_pairs else 0
    assert server_bytes(strategy.pipeline, 5, 300) == n_matrices * 4 * 5 * 300 + pairs


def test_memory_of_a_running_sum_does_not_grow_with_clients():
    pipeline, d = strategy_of().pipeline, 10**6
    assert server_bytes(pipeline, 1_000, d) == server_bytes(pipeline, 100, d) < 4 * 100 * d
    assert server_bytes(pipeline, 10, d) == 4 * 10 * d


class Shared(list):
    """A list that copies of a strategy write into too."""

    def __deepcopy__(self, memo: dict) -> "Shared":
        return self


class Noting(RobustFedAvg):
    """A mean that notes who answered in which order, and what chance it had and its copies had. It
    asks clients in no order, and writes into all that it is given."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__(mean, fraction_train=1.0, min_train_nodes=1, min_available_nodes=1)
        self.fails = fails
        self.orders: list[list[int]] = []
        self.draws = Shared()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.draw()
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self.overwrite(arrays)
        return reversed(messages)

    def draw(self) -> None:
        """As others' strategies draw."""
        numbers = np.random.random(), random.random(), torch.rand(()).item()  # noqa: NPY002
        self.draws.append(numbers)

    def overwrite(self, arrays: ArrayRecord) -> None:
        for array in arrays.values():
            array.numpy()[...] = 9

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = list(replies)
        self.orders.append([message.metadata.src_node_id for message in replies])
        self.draw()
        if self.fails:
            raise ZeroDivisionError
        result = super().aggregate_train(server_round, replies)
        for message in replies:
            self.overwrite(message.content.array_records["arrays"])
        return result


class TestWatched:
    """A strategy of somebody else's: 1 and 3 move along different axes, 2 sends half a model."""

    def watched(self, inner: Noting, rounds: int = 1, claim: int = 10, **more) -> Observed:
        strategy = Observed(inner, **more)
        for round_ in range(1, rounds + 1):
            a, b, c = asked(strategy, [2, 3, 1])
            one = {**START, "weight": START["weight"] + np.float32([[2, 0]])}
            other = {**START, "bias": START["bias"] + np.float32(4)}
            answers = [(c, other), (b, {"weight": START["weight"]}), (a, one)]
            replies = [reply(message, arrays, num_examples=claim) for message, arrays in answers]
            strategy.aggregate_train(round_, replies)
            assert START["bias"] == 3
            assert (one["weight"][0, 0], other["bias"]) == (3, 7)  # nothing was written over
        return strategy

    def said(self, strategy: Observed, what: str) -> list[float]:
        assert strategy.ledger is not None
        return [getattr(entry, what) for entry in strategy.ledger.clients]

    def test_what_it_made_of_each_client_is_inferred(self):
        inner = Noting()
        strategy = self.watched(inner)
        assert inner.orders == [[1, 2, 3]] == [self.said(strategy, "client")]  # by id
        # The step is half of each update: pulls are ½ · 2 · 1 and ½ · 4 · 2.
        approx = partial(pytest.approx, nan_ok=True)
        assert self.said(strategy, "weight") == approx([0.5, math.nan, 0.5])
        assert self.said(strategy, "contribution") == approx([0.2, math.nan, 0.8])
        assert strategy.ledger is not None
        assert strategy.ledger.residual == pytest.approx(0, abs=1e-6)

    def test_to_leave_clients_out_it_is_copied(self):
        inner = Noting()
        strategy = self.watched(inner, leave_one_out=True)
        assert len(inner.orders) == 1
        # (1, 0, 2) becomes (0, 0, 4) or (2, 0, 0): both as far away as it is long.
        assert self.said(strategy, "influence")[::2] == pytest.approx([1, 1])

    def test_its_chance_is_the_round_s(self):
        first, again, other = Noting(), Noting(), Noting()
        for inner, seed in ((first, 3), (again, 3), (other, 4)):
            self.watched(inner, rounds=2, seed=seed, leave_one_out=seed == 3)
        assert first.draws == again.draws
        assert len({*first.draws, *other.draws}) == 4  # the same for whatever it does in a round
        unseeded = Noting(), Noting()
        for inner in unseeded:
            self.watched(inner)
        assert not {*unseeded[0].draws} & {*unseeded[1].draws}

    @pytest.mark.parametrize(
        ("arrays", "weight", "skipped"),
        [
            (record_of(START), 0.0, ""),
            (record_of({name: values + np.inf for name, values in START.items()}), math.nan, ""),
            (None, 0.0, "the strategy returned no model"),
        ],
    )
    def test_where_it_does_not_move_or_not_to_numbers_nobody_contributed(
        self, arrays, weight, skipped
    ):
        inner = Noting()
        inner.aggregate_train = lambda server_round, replies: (arrays, None)
        strategy = self.watched(inner, leave_one_out=True)
        assert self.said(strategy, "weight")[::2] == pytest.approx([weight] * 2, nan_ok=True)
        for what in ("contribution", "influence"):
            assert np.isnan(self.said(strategy, what)).all()
        assert strategy.ledger is not None
        assert strategy.ledger.skipped == skipped

    def test_where_it_fails_nobody_is_heard(self):
        strategy = self.watched(Noting(fails=True), leave_one_out=True)
        assert strategy.ledger is not None
        assert strategy.ledger.skipped.startswith("ZeroDivisionError")
        assert self.said(strategy, "weight")[::2] == [0, 0]

    def test_where_it_cannot_ask_anybody_it_is_not_told_of_the_round(self):
        inner = Noting(fails=True)
        inner.configure_train = lambda *round_: [][0]
        strategy = Observed(inner)
        assert asked(strategy, [1]) == []
        assert strategy.aggregate_train(1, []) == (None, None)
        assert strategy.ledger is not None
        assert strategy.ledger.skipped.startswith("IndexError")

    def test_where_nobody_claims_examples_priors_are_equal(self):
        assert self.said(self.watched(Noting(), claim=0), "prior_weight") == [1 / 3] * 3
