import torch
from threadpoolctl import threadpool_info

from fl_testbed.engine.threads import limit_threads, threads_given_back


def n_threads() -> list[int]:
    blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    assert blas
    return [torch.get_num_threads(), *blas]


def test_torch_and_blas_have_as_many_threads_as_they_are_given_and_afterwards_as_before():
    before = n_threads()
    with threads_given_back():
        for count in (1, 2):
            limit_threads(count)
            assert set(n_threads()) == {count}
    assert n_threads() == before
