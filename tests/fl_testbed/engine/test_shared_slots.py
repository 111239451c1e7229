"""Replies through shared memory are the replies that were sent; memory in use stays as it is."""

import gc
import os

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fl_testbed.engine import shared_slots
from fl_testbed.engine.client_work import Outcome
from fl_testbed.engine.flower_internals import to_bytes
from fl_testbed.engine.shared_slots import N_SLOTS, SharedSlots, Slot, SlotWriter
from strategies.flower_arrays import Layout, flat_record, record_of, values_of, with_views

NODE = "this node"

if not hasattr(os, "memfd_create"):
    pytest.skip("this system has no files without names", allow_module_level=True)


def flat_reply(client: int) -> RecordDict:
    layout = Layout.of(record_of({"w": np.empty((100, 20), np.float32)}))
    values = np.random.default_rng(client).normal(size=2_000).astype(np.float32)
    metrics = MetricRecord({"num-examples": client, "losses": [0.5, 1.5]})
    return RecordDict({"arrays": flat_record(layout, values), "metrics": metrics})


def flowers_own_reply(client: int) -> RecordDict:
    arrays = [np.arange(3_000.0) + client, np.arange(1_200).reshape(30, 40).T, np.array(client)]
    content = RecordDict({"arrays": ArrayRecord(arrays), "config": ConfigRecord({"text": "ü"})})
    return with_views(content)  # as every reply leaves a client


def outcomes_of(*contents: RecordDict | None) -> list[Outcome]:
    state = RecordDict({"kept": record_of({"v": np.ones(5_000)})})
    return [Outcome(client, content, "", state) for client, content in enumerate(contents)]


def lent(slots: SharedSlots) -> Slot:
    slot = slots.lend()
    assert slot is not None
    return slot


def assert_same(sent: list[Outcome], received: list[Outcome]) -> None:
    for one, other in zip(sent, received, strict=True):
        assert (one.client, one.error, one.notes) == (other.client, other.error, other.notes)
        assert to_bytes(one.state) == to_bytes(other.state)
        assert (one.content is None) == (other.content is None)
        if one.content is not None and other.content is not None:
            assert to_bytes(one.content) == to_bytes(other.content)


def test_all_kinds_of_replies_arrive_byte_for_byte() -> None:
    slots, writer = SharedSlots(NODE), SlotWriter(NODE)
    sent = outcomes_of(flat_reply(0), flowers_own_reply(1), None, RecordDict(), flat_reply(4))
    slot = lent(slots)
    replies = writer.put(sent, slot)
    assert [len(packed.places) for packed in replies.packed] == [1, 2, 0, 0, 1]
    assert all(outcome.content is None for outcome in replies.outcomes)
    assert_same(sent, slots.read(replies, slot))


def test_what_does_not_fit_into_the_slot_travels_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_slots, "SLOT_BYTES", 16_384)
    slots, writer = SharedSlots(NODE), SlotWriter(NODE)
    sent = outcomes_of(*map(flat_reply, range(4)))
    slot = lent(slots)
    replies = writer.put(sent, slot)
    assert [len(packed.places) for packed in replies.packed] == [1, 1, 0, 0]
    assert_same(sent, slots.read(replies, slot))


def test_a_slot_is_free_again_once_nobody_refers_to_an_array_in_it() -> None:
    slots, writer = SharedSlots(NODE), SlotWriter(NODE)
    others = [lent(slots) for _ in range(N_SLOTS - 1)]
    slot = lent(slots)
    assert slots.lend() is None
    received = slots.read(writer.put(outcomes_of(flat_reply(0), flat_reply(1)), slot), slot)
    content = received.pop().content
    assert content is not None
    array = values_of(content.array_records["arrays"]["w"])[3:]
    expected = array.copy()
    del received, content
    gc.collect()
    assert slots.lend() is None
    assert np.array_equal(array, expected)
    del array
    assert slots.lend() == slot
    assert len({slot.begin, *(other.begin for other in others)}) == N_SLOTS


def test_a_lost_worker_that_goes_on_writing_changes_no_reply() -> None:
    lost, writer = SharedSlots(NODE), SlotWriter(NODE)
    slot = lent(lost)
    writer.put(outcomes_of(flat_reply(0)), slot)
    del lost  # as when its worker is replaced, which gets slots of its own
    slots, replacement = SharedSlots(NODE), SlotWriter(NODE)
    again = lent(slots)
    received = slots.read(replacement.put(outcomes_of(flat_reply(0)), again), again)
    writer.put(outcomes_of(flat_reply(1)), slot)
    assert_same(outcomes_of(flat_reply(0)), received)


def test_a_worker_that_goes_on_with_another_run_writes_into_its_new_slots() -> None:
    writer = SlotWriter(NODE)
    for client in range(2):
        slots = SharedSlots(NODE)
        slot = lent(slots)
        received = slots.read(writer.put(outcomes_of(flat_reply(client)), slot), slot)
        assert_same(outcomes_of(flat_reply(client)), received)


def test_replies_outlive_the_slots_of_a_worker_that_is_lost_later() -> None:
    slots, writer = SharedSlots(NODE), SlotWriter(NODE)
    slot = lent(slots)
    received = slots.read(writer.put(outcomes_of(flat_reply(0)), slot), slot)
    del slots, writer
    assert_same(outcomes_of(flat_reply(0)), received)


@pytest.mark.parametrize(
    "change",
    [{"node": "another node"}, {"pid": 2**22 + 1}, {"descriptor": 0}, {"name": "another file"}],
    ids=lambda change: next(iter(change)),
)
def test_what_cannot_reach_the_slot_leaves_contents_to_rays_store(change: dict) -> None:
    slots, writer = SharedSlots(NODE), SlotWriter(NODE)
    for _ in range(2 * N_SLOTS):  # the slot is free again each time
        slot = lent(slots)
        replies = writer.put(outcomes_of(flat_reply(0)), slot._replace(**change))
        assert not replies.packed
        assert_same(outcomes_of(flat_reply(0)), slots.read(replies, slot))


def test_without_a_slot_contents_stay_where_they_are() -> None:
    sent = outcomes_of(flat_reply(0))
    assert SlotWriter(NODE).put(iter(sent), None).outcomes[0].content is sent[0].content
