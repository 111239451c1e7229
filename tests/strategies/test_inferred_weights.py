"""Weights inferred from outside are those that rules report, where a step is a weighted sum."""

from functools import partial

import pytest
import torch

from strategies.aggregation import (
    blocks,
    bulyan,
    coordinate_median,
    krum,
    mean,
    multi_krum,
    norm_clipping,
)
from strategies.inferred_weights import inferred_weights


def updates(n=20, d=500, seed=0, spread=1.0):
    rng = torch.Generator().manual_seed(seed)
    return 1.0 + spread * torch.randn(n, d, generator=rng)


@pytest.mark.parametrize("size", [1.0, 1e-20])
def test_a_weighted_sum_by_hand(monkeypatch, size):
    monkeypatch.setattr(blocks, "CPU_BLOCK", 1)  # a column
    rows = size * torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    inferred = inferred_weights(rows, size * torch.tensor([0.25, 0.5]))
    assert inferred.weights.tolist() == pytest.approx([0.5, 0.5])
    assert inferred.scale == pytest.approx(0.5)
    assert inferred.residual == pytest.approx(0, abs=1e-5)


def test_what_no_sum_explains_is_the_residual():
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    inferred = inferred_weights(rows, torch.tensor([3.0, 0.0, 4.0]))
    assert inferred.weights.tolist() == pytest.approx([1, 0])
    assert inferred.residual == pytest.approx(0.8)
    against = inferred_weights(rows, torch.tensor([-1.0, -1.0, 0.0]))
    assert against.weights.tolist() == [0, 0]
    assert against.residual == pytest.approx(1)
    for nothing in (0 * rows, rows[:0]):
        inferred = inferred_weights(nothing, torch.tensor([3.0, 0.0, 4.0]))
        assert inferred.weights.tolist() == [0] * len(nothing)


@pytest.mark.parametrize("step", [0.0, torch.inf, torch.nan])
def test_a_server_that_does_not_move_or_moves_beyond_numbers_says_nothing(step):
    inferred = inferred_weights(updates(), torch.full((500,), step))
    assert inferred.weights.tolist() == [0] * 20
    assert inferred.residual != inferred.residual


def test_equal_updates_share_equally():
    rows = updates(n=4).repeat_interleave(torch.tensor([1, 1, 3, 1]), dim=0)
    inferred = inferred_weights(rows, rows.mean(dim=0))
    assert inferred.weights.tolist() == pytest.approx([1 / 6] * 6, abs=1e-3)


@pytest.mark.parametrize("spread", [0.01, 1.0])
@pytest.mark.parametrize(
    "rule",
    [
        mean,
        partial(krum, n_malicious=4),
        partial(multi_krum, n_malicious=4),
        norm_clipping,
    ],
    ids=["mean", "krum", "multi_krum", "norm_clipping"],
)
def test_the_weights_of_rules_that_average_are_found(rule, spread):
    rows = updates(spread=spread)
    rows *= torch.linspace(0.5, 2, 20)[:, None]
    exact = rule(rows)
    inferred = inferred_weights(rows, exact.update)
    assert inferred.residual < 1e-4
    torch.testing.assert_close(inferred.weights, exact.weights.double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("rule", [coordinate_median, partial(bulyan, n_malicious=4)])
def test_a_bad_fit_shows_in_the_residual(rule):
    rows = updates()
    assert inferred_weights(rows, rule(rows).update).residual > 0.05
