"""Workers that come up, or cannot."""

from collections.abc import Iterator
from time import sleep

import numpy as np
import pytest
import ray
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from ray.exceptions import RayTaskError

from fl_testbed.engine import ray_pool
from fl_testbed.engine.errors import PoolError
from fl_testbed.engine.ray_grid import RayGrid
from fl_testbed.engine.ray_pool import RayPool

CHUNK = 2  # clients that are handed out together


@pytest.fixture(scope="module")
def pool() -> Iterator[RayPool]:
    pool = RayPool(1)
    pool.wait_for_workers()
    yield pool
    pool.close()


def test_an_app_that_cannot_be_built_costs_no_worker(pool: RayPool) -> None:
    def broken(data: None) -> ClientApp:
        raise ValueError("no such layer")

    for _ in range(3):
        with pytest.raises(RayTaskError, match="no such layer"):
            pool.prepare(broken, None, 1)
    assert pool.prepare(lambda data: ClientApp(), None, 1) == 1
    assert len(pool.workers) == 1


def last_ones_take_long(data: None) -> ClientApp:
    app = ClientApp()

    @app.train()
    def answer(message: Message, context: Context) -> Message:
        sleep(600 * (context.node_id >= CHUNK))
        return Message(RecordDict(dict(message.content)), reply_to=message)

    return app


def test_the_next_run_does_not_wait_for_what_a_failed_one_has_left_its_workers_at(
    pool: RayPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.prepare(last_ones_take_long, None, 1)
    grid = RayGrid(pool, cohort=CHUNK, client_timeout_s=900.0)
    content = RecordDict({"arrays": ArrayRecord([np.zeros(3, np.float32)])})
    replies = grid.send_and_receive(
        [grid.create_message(content, "train", client, "1") for client in range(2 * CHUNK)]
    )
    next(replies)
    del replies  # the driver has failed
    monkeypatch.setattr(ray_pool, "ANSWER_TIMEOUT_S", 0.5)
    monkeypatch.setattr(ray_pool, "START_TIMEOUT_S", 40.0)
    assert pool.prepare(lambda data: ClientApp(), None, 1) == 1
    assert len(pool.workers) == 1


def test_workers_that_never_come_up_are_given_up_and_the_reason_is_told(
    pool: RayPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __init__(self, n_sharing: int) -> None:
            raise OSError("no /dev/shm")

        def prepare(self, *args: object) -> None: ...

        idle = prepare

    monkeypatch.setattr(pool, "_actor", ray.remote(Broken))
    pool.replace(pool.workers[0])
    with pytest.raises(PoolError, match=r"3 were lost, the last of them: .*no /dev/shm"):
        pool.wait_for_workers()
