"""Workers that come up, or cannot."""

from collections.abc import Iterator

import pytest
import ray
from flwr.clientapp import ClientApp
from ray.exceptions import RayTaskError

from fl_testbed.engine import ray_pool
from fl_testbed.engine.errors import PoolError
from fl_testbed.engine.ray_pool import RayPool


@pytest.fixture
def closed() -> Iterator[None]:
    yield
    ray.shutdown()


@pytest.mark.usefixtures("closed")
def test_an_app_that_cannot_be_built_costs_no_worker() -> None:
    def broken(data: None) -> ClientApp:
        raise ValueError("no such layer")

    pool = RayPool(2)
    for _ in range(3):
        with pytest.raises(RayTaskError, match="no such layer"):
            pool.prepare(broken, None, 1)
    assert pool.prepare(lambda data: ClientApp(), None, 1) == 1
    assert len(pool.workers) == 2


@pytest.mark.usefixtures("closed")
def test_workers_that_never_come_up_are_given_up_and_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        def __init__(self, n_sharing: int) -> None:
            raise OSError("no /dev/shm")

        def idle(self) -> int:
            return 1

        prepare = idle

    monkeypatch.setattr(ray_pool, "_Worker", Broken)
    pool = RayPool(1)
    with pytest.raises(PoolError, match=r"3 were lost, the last of them: .*no /dev/shm"):
        pool.wait_for_workers()
