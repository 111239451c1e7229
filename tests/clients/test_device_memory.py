"""How much memory work takes, and what it means to run out."""

import gc

import pytest
import torch

from clients.device_memory import CountedTensors, HostMemory, is_out_of_memory


def test_tensors_are_counted_while_they_live_and_views_of_them_are_not():
    before = torch.zeros(1_000)
    with CountedTensors() as count:
        one = torch.zeros(1_000)
        two = one[10:] + 1  # 990 of four bytes
        old = before[5:]  # made before, its view is no memory
        assert count.live == 4_000 + 3_960
        del one, old
        assert count.live == 3_960
        two.add_(1)
        assert count.live == 3_960
    assert count.peak == 7_960


def test_what_is_counted_under_vmap_and_autograd_is_what_is_there():
    # A batch of 3 products of (5, 7) and (7, 2): results of 3 × 5 × 2 numbers, then gradients.
    x, w = torch.rand(3, 5, 7), torch.rand(3, 7, 2, requires_grad=True)
    with CountedTensors() as count:
        product = torch.func.vmap(torch.matmul)(x, w)
        assert count.live == product.nbytes == 120
        (gradient,) = torch.autograd.grad(product, w, torch.ones_like(product))
        assert count.live == product.nbytes + gradient.nbytes
    assert count.peak >= product.nbytes * 2 + gradient.nbytes


def test_more_than_the_limit_is_out_of_memory():
    memory = HostMemory(limit=8_000)
    with memory.limited():
        kept = torch.zeros(1_000)
        with pytest.raises(torch.OutOfMemoryError, match="the limit is 8000"):
            torch.zeros(1_001)
        del kept
        gc.collect()
        assert torch.zeros(2_000).nbytes == 8_000
    torch.zeros(10_000)  # only while it is limited


def test_a_machine_that_has_less_free_than_the_limit_counts():
    assert HostMemory(lambda: 500, limit=800).free() == 500
    assert HostMemory(lambda: 900, limit=800).free() == 800
    assert HostMemory(lambda: 900).free() == 900
    assert HostMemory().free() is None


def test_what_else_libraries_raise_when_memory_is_short_is_known():
    cpu = "[enforce fail at alloc_cpu.cpp:128] err == 0. DefaultCPUAllocator: can't allocate memory"
    assert is_out_of_memory(RuntimeError(cpu))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("not enough memory"))
