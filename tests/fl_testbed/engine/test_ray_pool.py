"""Workers that come up, or cannot."""

from collections.abc import Iterator

import pytest
import ray
from flwr.clientapp import ClientApp
from ray.exceptions import RayTaskError

from fl_testbed.engine.errors import PoolError
from fl_testbed.engine.ray_pool import RayPool


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
