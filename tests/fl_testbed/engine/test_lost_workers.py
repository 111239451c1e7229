"""Workers that die together, as those of a node do."""

from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from time import sleep

import numpy as np
import pytest
import ray
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fl_testbed.engine import ray_grid
from fl_testbed.engine.ray_grid import RayGrid
from fl_testbed.engine.ray_pool import BuildApp, RayPool

N_WORKERS = ray_grid.ATTEMPTS


@pytest.fixture(scope="module")
def pool() -> Iterator[RayPool]:
    pool = RayPool(N_WORKERS)
    yield pool
    pool.close()


def waiting(marker: Path) -> BuildApp:
    """Return what builds an app whose client waits the first time that it is asked."""

    def build(data: None) -> ClientApp:
        app = ClientApp()

        @app.train()
        def answer(message: Message, context: Context) -> Message:
            if not marker.exists():
                marker.touch()
                sleep(60)
            return Message(RecordDict(dict(message.content)), reply_to=message)

        return app

    return build


def test_a_client_is_not_to_blame_for_the_workers_that_died_beside_its_own(
    pool: RayPool, tmp_path: Path
) -> None:
    marker = tmp_path / "asked"
    pool.prepare(waiting(marker), None, torch_threads=1)
    while len(pool.workers) < N_WORKERS:
        pool.join_started(timeout_s=1.0)
    everybody = list(pool.workers)

    def kill() -> None:
        while not marker.exists():
            sleep(0.05)
        for worker in everybody:
            ray.kill(worker)

    killer = Thread(target=kill)
    killer.start()
    grid = RayGrid(pool, cohort=1, client_timeout_s=300.0)
    content = RecordDict({"arrays": ArrayRecord([np.zeros(3, np.float32)])})
    (reply,) = grid.send_and_receive([grid.create_message(content, "train", 0, "1")])
    killer.join()
    assert not reply.has_error()
    assert not set(everybody) & set(pool.workers)
