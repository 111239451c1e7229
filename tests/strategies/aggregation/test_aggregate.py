"""The sums that most rules are made of."""

import pytest
import torch

from strategies.aggregation.aggregate import (
    empty_rows,
    grouped_sum,
    normalised,
    norms_of,
    weighted_sum,
)


@pytest.mark.parametrize("d", [3, 1_024, 2_500])
def test_norms_are_those_of_float64_however_long_or_short_a_row_is(d):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6, d, generator=generator)
    rows *= torch.tensor([0.0, 1e-25, 1e-3, 1.0, 1e4, 1e25])[:, None]
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


def test_a_gpu_s_way_to_sum_rows_gives_what_a_cpu_s_gives():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(100, 50, generator=generator)
    weights = torch.rand(100, dtype=torch.float64, generator=generator)
    weights[20:] *= torch.rand(80, generator=generator) < 0.7  # whole groups first, then gaps
    rows[weights == 0] = torch.nan  # of weight 0: not even read
    weights /= weights.sum()
    expected = weighted_sum(rows.double(), weights)
    torch.testing.assert_close(grouped_sum(rows, weights), expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(grouped_sum(rows.double(), weights), expected, rtol=0, atol=1e-15)
    assert not grouped_sum(rows, torch.zeros(100)).any()


def test_weights_are_scaled_to_sum_1_unless_all_of_them_are_0():
    assert normalised(torch.tensor([1.0, 3.0])).tolist() == [0.25, 0.75]
    assert normalised(torch.zeros(2)).tolist() == [0.0, 0.0]
