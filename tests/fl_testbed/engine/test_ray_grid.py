"""Replies of workers on the driver's node come through their slots, and only these."""

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fl_testbed.engine import ray_grid, ray_pool, shared_slots
from fl_testbed.engine.ray_grid import RayGrid
from fl_testbed.engine.ray_pool import BuildApp, RayPool
from fl_testbed.engine.shared_slots import Replies, SharedSlots, Slot

N_PARAMETERS = 5_000

if not hasattr(os, "memfd_create"):
    pytest.skip("this system has no files without names", allow_module_level=True)


def adding() -> BuildApp:
    """Return what builds an app whose clients add their id: workers get the code by value."""

    def build(data: None) -> ClientApp:
        app = ClientApp()

        @app.train()
        def answer(message: Message, context: Context) -> Message:
            received = message.content.array_records["arrays"]["0"].numpy()
            arrays = ArrayRecord([received + int(context.node_config["partition-id"])])
            return Message(RecordDict({"arrays": arrays}), reply_to=message)

        return app

    return build


def without_store(marker: Path) -> BuildApp:
    """Return what builds the same, and takes away the store of the first worker that does."""
    build_app = adding()

    def build(data: None) -> ClientApp:
        def get(reference: object) -> None:
            marker.touch()
            raise BrokenPipeError

        if not marker.exists():
            ray_pool.ray = SimpleNamespace(get=get)
        return build_app(data)

    return build


@pytest.fixture(scope="module")
def pool() -> Iterator[RayPool]:
    pool = RayPool(1)
    pool.prepare(adding(), None, torch_threads=1)
    yield pool
    pool.close()


def replies_of(pool: RayPool, n: int) -> dict[int, Message]:
    replies = asked(RayGrid(pool, cohort=1, client_timeout_s=60.0), n)
    return {reply.metadata.src_node_id: reply for reply in replies}


def asked(grid: RayGrid, n: int) -> Iterator[Message]:
    content = RecordDict({"arrays": ArrayRecord([np.zeros(N_PARAMETERS, np.float32)])})
    messages = [grid.create_message(content, "train", client, "1") for client in range(n)]
    yield from grid.send_and_receive(messages)


def values_of(reply: Message) -> list[float]:
    return reply.content.array_records["arrays"]["0"].numpy().tolist()


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each chunk that had a slot, whether its contents came through it."""
    seen: list[bool] = []
    read = SharedSlots.read

    def noted(self: SharedSlots, replies: Replies, slot: Slot) -> list:
        seen.append(bool(replies.packed))
        return read(self, replies, slot)

    monkeypatch.setattr(SharedSlots, "read", noted)
    return seen


def test_replies_come_through_slots_as_often_as_one_likes(
    pool: RayPool, packed: list[bool]
) -> None:
    for _ in range(2 * shared_slots.N_SLOTS):
        replies = replies_of(pool, 8)
        assert all(values_of(replies[client]) == [client] * N_PARAMETERS for client in range(8))
        del replies
        gc.collect()  # the checks of shapes in tests leave cycles behind
    assert len(packed) > 2 * shared_slots.N_SLOTS
    assert all(packed)


def test_replies_that_are_kept_keep_their_slots_and_others_take_the_store(
    pool: RayPool, packed: list[bool]
) -> None:
    kept = [replies_of(pool, 4) for _ in range(2 * shared_slots.N_SLOTS)]
    assert 0 < len(packed) <= shared_slots.N_SLOTS
    for replies in kept:
        assert all(values_of(replies[client]) == [client] * N_PARAMETERS for client in range(4))


def test_workers_on_another_node_answer_through_the_store(
    pool: RayPool, packed: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.prepare(adding(), None, torch_threads=1)
    monkeypatch.setattr(ray_pool, "_node", lambda: "another node")
    replies = replies_of(pool, 4)
    assert all(values_of(replies[client]) == [client] * N_PARAMETERS for client in range(4))
    assert packed
    assert not any(packed)


def test_a_worker_that_is_given_up_leaves_its_slots_to_nobody(pool: RayPool) -> None:
    (worker,) = pool.workers
    before = pool.slots_of(worker)
    assert before is pool.slots_of(worker)
    pool.replace(worker)
    pool.wait_for_workers()
    assert pool.slots_of(pool.workers[0]) is not before
    assert values_of(replies_of(pool, 2)[1]) == [1.0] * N_PARAMETERS


def test_a_worker_whose_nodes_store_is_gone_is_lost_and_another_answers(
    pool: RayPool, tmp_path: Path
) -> None:
    pool.prepare(without_store(tmp_path / "gone"), None, torch_threads=1)
    events: list[str] = []
    grid = RayGrid(pool, cohort=1, client_timeout_s=60.0, on_event=events.append)
    replies = {reply.metadata.src_node_id: reply for reply in asked(grid, 3)}
    assert (tmp_path / "gone").exists()
    assert any("worker lost" in event for event in events)
    assert all(values_of(replies[client]) == [client] * N_PARAMETERS for client in range(3))


def test_no_worker_is_blamed_for_a_server_that_takes_its_time(
    pool: RayPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_grid, "GRACE_S", 0.0)
    events: list[str] = []
    grid = RayGrid(pool, cohort=1, client_timeout_s=0.3, on_event=events.append)
    replies = asked(grid, 8)
    values = [values_of(next(replies))[0]]
    time.sleep(3)  # by now all others have answered
    values += [values_of(reply)[0] for reply in replies]
    assert sorted(values) == list(range(8))
    assert events == []
