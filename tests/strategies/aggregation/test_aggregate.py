"""The sums that most rules are made of."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from strategies.aggregation import aggregate, blocks
from strategies.aggregation.aggregate import (
    Aggregate,
    empty_rows,
    normalised,
    norms_of,
    shared_by_copies,
    weighted_sum,
)


@pytest.mark.parametrize("d", [3, 1_024, 2_500])
def test_norms_are_those_of_float64_however_long_or_short_a_row_is(d):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(9, d, generator=generator)
    rows *= torch.tensor([0.0, 1e-25, 1e-21, 1e-3, 1.0, 1e4, 1e18, 1e20, 1e25])[:, None]
    expected = rows.double().norm(dim=1)
    torch.testing.assert_close(norms_of(rows), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(norms_of(rows.double()), expected, rtol=1e-12, atol=0)


def test_many_equal_values_lose_nothing():
    # A float32 sum of their squares, one by one, would stand still at 2^24 = 16.8 million.
    assert norms_of(torch.ones(1, 20_000_000)).item() == pytest.approx(20_000_000**0.5, rel=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empty_rows_are_like_the_others(dtype):
    rows = empty_rows(3, torch.zeros(2, 5, dtype=dtype))
    assert (rows.shape, rows.dtype, rows.device.type) == ((3, 5), dtype, "cpu")


def a_hundred_rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows and their weights, of which some are 0."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(100, 50, generator=generator)
    weights = torch.rand(100, dtype=torch.float64, generator=generator)
    weights[20:] *= torch.rand(80, generator=generator) < 0.7  # whole groups first, then gaps
    return rows, weights / weights.sum()


@pytest.fixture
def no_matrix_is_small(monkeypatch):
    monkeypatch.setattr(aggregate, "SMALL", 0)


@pytest.mark.usefixtures("no_matrix_is_small")
@pytest.mark.parametrize("group", [1, 16, 128])
def test_rows_are_summed_whatever_groups_they_are_in(monkeypatch, group):
    monkeypatch.setattr(aggregate, "GROUP", group)
    rows, weights = a_hundred_rows()
    expected = weights @ rows.double()
    rows[weights == 0] = torch.nan  # of weight 0: not added
    torch.testing.assert_close(weighted_sum(rows, weights).double(), expected, rtol=0, atol=1e-7)
    of_doubles = weighted_sum(rows.double(), weights)
    torch.testing.assert_close(of_doubles, expected, rtol=0, atol=1e-15)
    in_float64 = weighted_sum(rows, weights, torch.float64)
    torch.testing.assert_close(in_float64, expected, rtol=0, atol=1e-15)
    assert not weighted_sum(rows, torch.zeros(100)).any()


@pytest.mark.usefixtures("no_matrix_is_small")
@pytest.mark.parametrize("of", ["rows", "columns", "weights"])
def test_giants_that_cancel_leave_the_digits_of_the_others(monkeypatch, of):
    monkeypatch.setattr(aggregate, "LOOKED_AT", 1)  # every third column tells of giants
    rows, weights = a_hundred_rows()
    if of == "rows":
        rows[:32] *= 3e7
        rows[32:64] = -rows[:32]  # nearly three quarters of those heard
        weights[:64] = 0.01
    elif of == "columns":
        rows[10, 48], rows[20, 48] = 3e4, -3e4
        weights[10] = weights[20] = 0.01
    else:
        rows[10] = rows[20] = rows[0]
        weights[10], weights[20] = 3e5, -3e5
    expected = weights @ rows.double()
    torch.testing.assert_close(weighted_sum(rows, weights).double(), expected, rtol=0, atol=1e-7)


@pytest.mark.usefixtures("no_matrix_is_small")
def test_giants_in_a_column_that_is_not_looked_at_are_told_by_their_norms():
    rows = torch.randn(40, 16 * 257, generator=torch.Generator().manual_seed(0))
    rows[10, 256], rows[20, 256] = 1e8, -1e8  # of every 257 columns 256 are looked at
    weights = torch.full((40,), 1 / 40, dtype=torch.float64)
    summed = weighted_sum(rows, weights, norms=norms_of(rows)).double()
    torch.testing.assert_close(summed, weights @ rows.double(), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("no_matrix_is_small")
def test_a_sum_of_many_rows_is_as_exact_as_one_of_few():
    generator = torch.Generator().manual_seed(0)
    rows = 1 + 1e-3 * torch.randn(10_000, 20, generator=generator)
    weights = torch.full((10_000,), 1e-4, dtype=torch.float64)
    summed = weighted_sum(rows, weights).double()
    torch.testing.assert_close(summed, weights @ rows.double(), rtol=0, atol=2e-7)


@pytest.mark.usefixtures("no_matrix_is_small")
def test_weights_that_float32_cannot_hold_count():
    weights = torch.tensor([3e-44, 0.0, 3e-44], dtype=torch.float64)
    summed = weighted_sum(torch.tensor([[2e38], [1.0], [1e38]]), weights)
    torch.testing.assert_close(summed, torch.tensor([9e-6]), rtol=1e-6, atol=0)
    weights = torch.tensor([-2e40, 0.0, 0.5], dtype=torch.float64)  # of a row brought to length 1
    summed = weighted_sum(torch.tensor([[1e-40, 0.0], [1.0, 1.0], [2.0, 2.0]]), weights)
    torch.testing.assert_close(summed, torch.tensor([-1.0, 1.0]), rtol=1e-4, atol=0)


def test_a_small_matrix_is_summed_in_float64():
    # In float32 it would be 0: most rows are giants here, so that none is found to be one.
    rows = torch.tensor([[1e8], [1e8], [1.0], [-1e8], [-1e8]])
    assert weighted_sum(rows, torch.ones(5)).tolist() == [1.0]


@pytest.mark.usefixtures("no_matrix_is_small")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sum_is_the_same_bytes_for_any_number_of_threads(dtype):
    generator = torch.Generator().manual_seed(0)
    before = torch.get_num_threads()
    try:
        for n, d in ((128, 100), (40, 140_000)):
            rows = torch.randn(n, d, generator=generator, dtype=dtype)
            weights = torch.rand(n, generator=generator, dtype=torch.float64)
            sums = []
            for n_threads in (1, 2, 3):
                torch.set_num_threads(n_threads)
                sums.append(weighted_sum(rows, weights))
            assert all(torch.equal(summed, sums[0]) for summed in sums)
    finally:
        torch.set_num_threads(before)


def test_what_is_made_of_blocks_may_go_by_blocks_itself():
    updates, weights = torch.ones(2, 3), torch.tensor([0.5, 0.5])
    found = blocks.each_block([slice(0, 3)], lambda block, _: block, lambda: None, on_cpu=True)
    assert [weighted_sum(updates[:, block], weights).tolist() for block in found] == [[1, 1, 1]]


def test_weights_are_scaled_to_sum_1_unless_all_of_them_are_0():
    assert normalised(torch.tensor([1e-30, 3e-30])).tolist() == pytest.approx([0.25, 0.75])
    assert normalised(torch.zeros(2)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_copies_share_by_their_priors_and_rows_that_differ_anywhere_are_none(monkeypatch, dtype):
    monkeypatch.setattr(aggregate, "KEY_COLUMNS", 2)  # of five columns the first and the fourth
    monkeypatch.setattr(blocks, "CPU_BLOCK", 1)
    rows = torch.tensor([[0, 1, 2, 3, 4]]).repeat(5, 1).to(dtype)
    rows[1, 0], rows[2, 1], rows[4, 4] = -0.0, 9, 9
    rows = rows.T.contiguous().T  # however it lies in memory
    weights, suspicion, pulls = (
        torch.tensor(values).double()
        for values in ([0.5, 0, 0.2, 0.25, 0.05], [4.0, 1, 2, 3, 5], [8.0, 0, 1, 0, 2])
    )
    own = Aggregate(rows[0], weights, suspicion, pulls=pulls)
    prior = torch.tensor([0.1, 0.3, 0.2, 0.2, 0.2]).double()
    shared = shared_by_copies(own, rows, prior)
    expected = torch.tensor([0.125, 0.375, 0.2, 0.25, 0.05]).double()
    torch.testing.assert_close(shared.weights, expected)
    expected = torch.tensor([8 / 3, 8 / 3, 2, 8 / 3, 5]).double()
    torch.testing.assert_close(shared.suspicion, expected)
    assert shared.pulls is not None
    torch.testing.assert_close(shared.pulls, torch.tensor([8 / 6, 4, 1, 8 / 3, 2]).double())


class Readings(TorchDispatchMode):
    """Counts how often numbers or the places of True are read, which waits for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        self.count += func in (aten._local_scalar_dense.default, aten.nonzero.default)
        masks = (i for i in args[1] if i is not None) if func is aten.index.Tensor else ()
        self.count += any(mask.dtype == torch.bool for mask in masks)
        return func(*args, **(kwargs or {}))


def test_scaling_weights_waits_for_nothing():
    with Readings() as readings:
        assert normalised(torch.ones(4))[0] == 0.25
    assert readings.count == 1  # our own


@pytest.mark.parametrize("small", [0, 2**20])
def test_a_sum_waits_no_more_often_for_many_rows_than_for_few(monkeypatch, small):
    monkeypatch.setattr(aggregate, "SMALL", small)
    rows, weights = a_hundred_rows()
    counts = []
    for n in (10, 100):
        with Readings() as readings:
            weighted_sum(rows[:n], weights[:n])
        counts.append(readings.count)
    assert counts[0] == counts[1] <= 1  # that of norms far too large or small for float32
