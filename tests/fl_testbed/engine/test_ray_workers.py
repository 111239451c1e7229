"""Ray workers: how they come up, or cannot, answer, hang and die. One cluster serves all tests."""

import gc
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
import ray
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from ray.exceptions import RayError, RayTaskError

from fl_testbed.engine import ray_grid, ray_pool, shared_slots
from fl_testbed.engine.errors import PoolError
from fl_testbed.engine.installation import check_same, installation
from fl_testbed.engine.ray_grid import RayGrid
from fl_testbed.engine.ray_pool import BuildApp, RayPool
from fl_testbed.engine.shared_slots import Replies, SharedSlots, Slot

N_PARAMETERS = 5_000
N_WORKERS = 2
CHUNK = 2  # clients that are handed out together

with_slots = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="this system has no files without names"
)


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
            raise BrokenPipeError

        with suppress(FileExistsError):
            marker.touch(exist_ok=False)
            ray_pool.ray = SimpleNamespace(get=get)
        return build_app(data)

    return build


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayPool]:
    pool = RayPool(N_WORKERS)
    yield pool
    ray.shutdown()


@pytest.fixture
def pool(cluster: RayPool) -> Iterator[RayPool]:
    """All workers, as they are ready for a run."""
    prepare(cluster, adding())
    yield cluster
    while len(cluster.workers) + len(cluster._starting) > N_WORKERS:  # a test asked for more
        ray.kill(cluster._starting.popitem()[1])


def prepare(pool: RayPool, build: BuildApp) -> None:
    pool.prepare(build, None, torch_threads=1)
    wait_for_all(pool)


def wait_for_all(pool: RayPool) -> None:
    while len(pool.workers) < N_WORKERS:
        pool.join_started(timeout_s=1.0)


INTRUDE = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"


@pytest.mark.usefixtures("cluster")
def test_a_local_cluster_answers_this_command_alone(tmp_path: Path) -> None:
    others = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH_")}
    address = ray.get_runtime_context().gcs_address
    done = subprocess.run(
        [sys.executable, "-c", INTRUDE, address],
        env=others | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "token is missing or incorrect" in done.stderr


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


@with_slots
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


@with_slots
def test_replies_that_are_kept_keep_their_slots_and_others_take_the_store(
    pool: RayPool, packed: list[bool]
) -> None:
    n_slots = N_WORKERS * shared_slots.N_SLOTS
    kept = [replies_of(pool, 4) for _ in range(2 * n_slots)]
    assert 0 < len(packed) <= n_slots
    for replies in kept:
        assert all(values_of(replies[client]) == [client] * N_PARAMETERS for client in range(4))


@with_slots
def test_workers_on_another_node_answer_through_the_store(
    pool: RayPool, packed: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool, "_node", lambda: "another node")
    replies = replies_of(pool, 4)
    assert all(values_of(replies[client]) == [client] * N_PARAMETERS for client in range(4))
    assert packed
    assert not any(packed)


def test_a_worker_whose_nodes_store_is_gone_is_lost_and_another_answers(
    pool: RayPool, tmp_path: Path
) -> None:
    prepare(pool, without_store(tmp_path / "gone"))
    slots = {worker: pool.slots_of(worker) for worker in pool.workers}
    events: list[str] = []
    grid = RayGrid(pool, cohort=1, client_timeout_s=60.0, on_event=events.append)
    replies = {reply.metadata.src_node_id: reply for reply in asked(grid, 3)}
    assert any("worker lost" in event for event in events)
    assert all(values_of(replies[client]) == [client] * N_PARAMETERS for client in range(3))
    wait_for_all(pool)
    (lost,) = slots.keys() - set(pool.workers)
    assert slots[lost] not in map(pool.slots_of, pool.workers)  # it may write there for a while yet
    assert pool.slots_of(lost) is not slots[lost]


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


def test_an_app_that_cannot_be_built_costs_no_worker(pool: RayPool) -> None:
    def broken(data: None) -> ClientApp:
        raise ValueError("no such layer")

    before = set(pool.workers)
    for _ in range(3):
        with pytest.raises(RayTaskError, match="no such layer"):
            pool.prepare(broken, None, 1)
    prepare(pool, lambda data: ClientApp())
    assert set(pool.workers) == before


def last_ones_take_long(data: None) -> ClientApp:
    app = ClientApp()

    @app.train()
    def answer(message: Message, context: Context) -> Message:
        time.sleep(600 * (context.node_id >= CHUNK))
        return Message(RecordDict(dict(message.content)), reply_to=message)

    return app


def test_the_next_run_does_not_wait_for_what_a_failed_one_has_left_its_workers_at(
    pool: RayPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(pool, last_ones_take_long)
    before = set(pool.workers)
    grid = RayGrid(pool, cohort=CHUNK, client_timeout_s=900.0)
    content = RecordDict({"arrays": ArrayRecord([np.zeros(3, np.float32)])})
    replies = grid.send_and_receive(
        [grid.create_message(content, "train", client, "1") for client in range(2 * CHUNK)]
    )
    next(replies)
    del replies  # the driver has failed
    monkeypatch.setattr(ray_pool, "ANSWER_TIMEOUT_S", 0.5)
    monkeypatch.setattr(ray_pool, "START_TIMEOUT_S", 40.0)
    pool.prepare(lambda data: ClientApp(), None, 1)
    assert len(before & set(pool.workers)) < N_WORKERS


def waiting(marker: Path) -> BuildApp:
    """Return what builds an app whose client waits the first time that it is asked."""

    def build(data: None) -> ClientApp:
        app = ClientApp()

        @app.train()
        def answer(message: Message, context: Context) -> Message:
            if not marker.exists():
                marker.touch()
                time.sleep(60)
            return Message(RecordDict(dict(message.content)), reply_to=message)

        return app

    return build


def test_a_client_is_not_to_blame_for_the_workers_that_died_beside_its_own(
    pool: RayPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_grid, "ATTEMPTS", N_WORKERS)
    marker = tmp_path / "asked"
    prepare(pool, waiting(marker))
    everybody = list(pool.workers)

    def kill() -> None:
        while not marker.exists():
            time.sleep(0.05)
        for worker in reversed(everybody):  # the first one is at work
            ray.kill(worker)
            with suppress(RayError):
                while True:
                    ray.get(worker.idle.remote())

    killer = Thread(target=kill)
    killer.start()
    grid = RayGrid(pool, cohort=1, client_timeout_s=300.0)
    content = RecordDict({"arrays": ArrayRecord([np.zeros(3, np.float32)])})
    (reply,) = grid.send_and_receive([grid.create_message(content, "train", 0, "1")])
    killer.join()
    assert not reply.has_error()
    assert not set(everybody) & set(pool.workers)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("local", r"Ray does not start here \(timed out on 3\): check memory"),
        (
            "head:1",
            r"cannot join the Ray cluster at head:1 \(timed out on None\): .* RAY_AUTH_TOKEN$",
        ),
    ],
)
def test_a_ray_that_does_not_begin_is_told_of_in_a_line(
    monkeypatch: pytest.MonkeyPatch, address: str, told: str
) -> None:
    def init(**settings: object) -> None:
        raise Exception(f"timed out on {settings.get('num_cpus')}. Ray's\nadvice")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray_pool, "cores_allotted", lambda: 3)
    monkeypatch.setattr(ray_pool, "_reached", lambda address: address)
    with pytest.raises(PoolError, match=told):
        RayPool(address=address)


def test_ray_is_given_a_cluster_by_number_as_it_may_not_find_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def init(address: str, **settings: object) -> None:
        raise Exception(f"asked for {address}")

    monkeypatch.setattr(ray, "init", init)
    with socket.socket() as head:
        head.bind(("127.0.0.1", 0))
        head.listen()
        port = head.getsockname()[1]
        told = rf"at localhost:{port} \(asked for 127\.0\.0\.1:{port}\)"
        with pytest.raises(PoolError, match=told):
            RayPool(address=f"localhost:{port}")


def test_a_node_that_has_something_else_installed_is_named(
    pool: RayPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unfit:
        def __init__(self, n_sharing: int, wanted: None) -> None:
            check_same(installation() | {"torch": "1.0"})

        def prepare(self, *args: object) -> None: ...

    monkeypatch.setattr(pool, "_actor", ray.remote(Unfit))
    pool._start()
    told = r"no worker can start on node [0-9.]+: its torch is [^;]*, that of the command 1.0$"
    with pytest.raises(PoolError, match=told):
        pool.join_started(timeout_s=60.0)


@pytest.mark.parametrize("allowed_s", [0.5, 1.5, 2.5])
def test_time_may_run_out_at_any_moment_while_workers_are_waited_for(
    pool: RayPool, monkeypatch: pytest.MonkeyPatch, allowed_s: float
) -> None:
    monkeypatch.setattr(pool, "n_workers", N_WORKERS + 1)
    monkeypatch.setattr(ray_pool, "OTHERS_TIMEOUT_S", allowed_s)
    seconds = count()
    monkeypatch.setattr(ray_pool, "monotonic", lambda: next(seconds))  # one passes at each look
    pool.prepare(adding(), None, torch_threads=1)
    assert pool.workers


def test_a_worker_that_finds_no_room_is_waited_for_once_and_not_by_every_run(
    pool: RayPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "n_workers", N_WORKERS + 1)
    monkeypatch.setattr(ray_pool, "OTHERS_TIMEOUT_S", 0.5)
    pool.prepare(adding(), None, torch_threads=1)
    (waiting,) = pool._starting.values()
    came: list[list[object]] = []
    join_started = pool.join_started

    def noted(timeout_s: float = 0.0) -> list[object]:
        came.append(join_started(timeout_s))
        return came[-1]

    monkeypatch.setattr(pool, "join_started", noted)
    prepare(pool, adding())
    assert all(came)  # it waited for workers that came, and then no more
    assert list(pool._starting.values()) == [waiting]


def test_workers_that_never_come_up_are_given_up_with_the_reason_and_asked_for_by_the_next_run(
    pool: RayPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __init__(self, n_sharing: int, wanted: None) -> None:
            os._exit(1)

        def prepare(self, *args: object) -> None: ...

        idle = prepare

    monkeypatch.setattr(pool, "_actor", ray.remote(Broken))
    monkeypatch.setattr(ray_pool, "START_ATTEMPTS", 1)
    for worker in list(pool.workers):  # from here on there are none
        pool.replace(worker)
    with pytest.raises(PoolError, match=r"3 were lost, the last one with: .*died unexpectedly"):
        pool.wait_for_workers()
    monkeypatch.undo()
    pool.prepare(lambda data: ClientApp(), None, 1)
    wait_for_all(pool)
