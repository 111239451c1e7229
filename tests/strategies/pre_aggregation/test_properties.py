"""Truths of every pre-aggregation. One that lacks a truth is left out by name, with the reason."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from a_round import round_of
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.device_memory import CountedTensors
from strategies.aggregation import (
    Aggregate,
    TooFewClientsError,
    bulyan,
    caf,
    coordinate_median,
    geometric_median,
    krum,
    multi_krum,
    trimmed_mean,
)
from strategies.pipeline import Pipeline, RoundFacts
from strategies.pre_aggregation import (
    Mixed,
    adaptive_clipping,
    bucketing,
    clipping,
    nearest_neighbour_mixing,
)

N, F, D = 11, 2, 6

STEPS: dict[str, Callable[..., Mixed]] = {
    "adaptive_clipping": partial(adaptive_clipping, n_malicious=F),
    "bucketing": partial(bucketing, size=3),
    "clipping": partial(clipping, max_norm=1.5),
    "nearest_neighbour_mixing": partial(nearest_neighbour_mixing, n_malicious=F),
}
ORDER_DECIDES = {"bucketing": "its buckets are drawn by row"}
NOT_TRANSLATION_EQUIVARIANT = {
    "adaptive_clipping": "it measures norms from the origin",
    "clipping": "it measures norms from the origin",
}
NOT_SCALE_EQUIVARIANT = {"clipping": "its bound is in parameter units"}
MOVES_WHAT_ALL_AGREE_ON = {"clipping": "its bound may be shorter than what all agree on"}
AVERAGES = ("bucketing", "nearest_neighbour_mixing")

RULES: dict[str, Callable[..., Aggregate]] = {
    "bulyan": partial(bulyan, n_malicious=F),
    "caf": partial(caf, n_malicious=F),
    "coordinate_median": coordinate_median,
    "geometric_median": geometric_median,
    "krum": partial(krum, n_malicious=F),
    "multi_krum": partial(multi_krum, n_malicious=F),
    "trimmed_mean": partial(trimmed_mean, n_malicious=F),
}

seeds = st.integers(0, 2**31)
sizes = st.sampled_from([1e-3, 1.0, 30.0, 1e4, 1e15, 1e30])
few = settings(max_examples=10)


def every_step(but: dict[str, str] | None = None) -> Any:
    left = [name for name in STEPS if name not in (but or {})]
    return pytest.mark.parametrize("name", left)


def gaussian_updates(seed: int, n: int = N) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def mixed(name: str, updates: torch.Tensor, seed: int = 0, **facts: torch.Tensor) -> Mixed:
    asked = inspect.signature(STEPS[name]).parameters
    known = {"rng": np.random.default_rng(seed), **facts}
    return STEPS[name](updates, **{fact: known[fact] for fact in known if fact in asked})


def round_facts(n: int, seed: int) -> RoundFacts:
    return round_of(
        n,
        losses=torch.zeros(n, dtype=torch.float64),
        confidences=torch.ones(n, dtype=torch.float64),
        rng=np.random.default_rng(seed),
    )


def assert_close(actual: torch.Tensor, expected: torch.Tensor, size: float = 1.0) -> None:
    torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=1e-4, atol=1e-5 * size)


@every_step(but=ORDER_DECIDES)
@given(seed=seeds)
@few
def test_the_order_of_clients_is_irrelevant(name, seed):
    updates = gaussian_updates(seed)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    original, permuted = mixed(name, updates), mixed(name, updates[order])
    assert_close(permuted.updates, original.updates[order])
    assert_close(permuted.mixing, original.mixing[order][:, order])


@every_step(but=NOT_TRANSLATION_EQUIVARIANT)
@given(seed=seeds)
@few
def test_shifting_every_client_shifts_every_row(name, seed):
    updates, shift = gaussian_updates(seed), gaussian_updates(seed + 1)[0]
    original, shifted = mixed(name, updates), mixed(name, updates + shift)
    assert_close(shifted.updates, original.updates + shift, size=10)
    assert_close(shifted.mixing, original.mixing)


@every_step(but=NOT_SCALE_EQUIVARIANT)
@given(seed=seeds, exponent=st.integers(-40, 40))
@few
def test_scaling_every_client_scales_every_row(name, seed, exponent):
    updates, scale = gaussian_updates(seed), 2.0**exponent
    original, scaled = mixed(name, updates), mixed(name, scale * updates)
    assert_close(scaled.updates, scale * original.updates, size=scale)
    assert_close(scaled.mixing, original.mixing)


@every_step()
@given(seed=seeds, spread=st.sampled_from([0.0, 1e-3, 1.0, 1e3]))
@few
def test_rows_are_what_the_mixing_says_and_nobody_is_counted_twice(name, seed, spread):
    updates = gaussian_updates(seed)[:1] + spread * gaussian_updates(seed + 1)
    rows, mixing = mixed(name, updates, seed)
    assert_close(rows, mixing @ updates.double(), size=1 + spread)
    assert (mixing >= 0).all()
    totals = mixing.sum(dim=1)
    assert (totals <= 1 + 1e-9).all()  # no row is longer than the longest client's
    if name in AVERAGES:
        assert_close(totals, torch.ones(len(rows)))
    assert (mixing.sum(dim=0) > 0).all()  # no client is lost


@pytest.mark.parametrize("name", ["adaptive_clipping", "nearest_neighbour_mixing"])
def test_one_client_fewer_than_the_bound_says_is_refused(name):
    mixed(name, gaussian_updates(0, 2 * F + 1))
    with pytest.raises(TooFewClientsError, match=f"^{name} needs n >= 2f"):
        mixed(name, gaussian_updates(0, 2 * F))


@every_step(but=MOVES_WHAT_ALL_AGREE_ON)
@given(seed=seeds)
@few
def test_what_all_clients_agree_on_is_left_alone(name, seed):
    agreed = gaussian_updates(seed)[0]
    rows = mixed(name, agreed.repeat(N, 1)).updates
    assert_close(rows, agreed.expand_as(rows))


@every_step()
def test_the_rows_that_came_in_stay_as_they_were(name):
    updates = gaussian_updates(5)
    before = updates.clone()
    mixed(name, updates)
    assert torch.equal(updates, before)


@every_step()
def test_rows_in_float64_stay_in_float64(name):
    rows, mixing = mixed(name, gaussian_updates(3).double())
    assert rows.dtype == torch.float64
    assert mixing.dtype == torch.float64


@given(seed=seeds, size=sizes, f=st.integers(1, 3))
@few
def test_mixing_keeps_honest_clients_among_themselves_up_to_its_bound(seed, size, f):
    honest = 1 + gaussian_updates(seed, f + 1)
    attack = size * gaussian_updates(seed + 1, f)
    rows, _ = nearest_neighbour_mixing(torch.cat([attack, honest]), n_malicious=f)
    diameter = torch.cdist(honest, honest).max()
    # Whom it takes from attackers is no further from it than the honest clients it could have.
    assert (rows[f:] - honest).norm(dim=1).max() <= diameter * (1 + 1e-4)


@given(seed=seeds, size=sizes, f=st.integers(1, 3))
@few
def test_adaptive_clipping_leaves_no_row_longer_than_the_longest_honest_one(seed, size, f):
    honest = gaussian_updates(seed, f + 1)
    attack = size * gaussian_updates(seed + 1, f)
    rows, _ = adaptive_clipping(torch.cat([attack, honest]), n_malicious=f)
    assert rows.norm(dim=1).max() <= honest.norm(dim=1).max() * (1 + 1e-5)


@every_step(but=ORDER_DECIDES)
@given(seed=seeds, n=st.integers(N, 40))
@few
def test_copies_are_heard_and_suspected_alike_after_it(name, seed, n):
    updates = gaussian_updates(seed, n)
    copies = [1, 4, n - 2, n - 1]
    updates[copies] = updates[4].clone()
    pipeline = Pipeline(RULES["multi_krum"], pre_aggregate=[STEPS[name]])
    result = pipeline(updates, round_facts(n, seed), {}).result
    for figures in (result.weights, result.suspicion):
        assert_close(figures[copies], figures[copies].mean().expand(4))


@given(seed=seeds)
@few
def test_f_attackers_are_in_at_most_f_buckets(seed):
    _, mixing = mixed("bucketing", gaussian_updates(seed), seed)
    assert (mixing[:, :F] > 0).any(dim=1).sum() <= F


@every_step()
@pytest.mark.parametrize("rule", RULES)
@given(seed=seeds, size=sizes, together=st.booleans())
@few
def test_a_rule_that_follows_still_withstands_f_attackers(name, rule, seed, size, together):
    n = 3 * N  # buckets of three leave as many rows as Bulyan needs
    honest = 1 + gaussian_updates(seed, n - F)
    attack = gaussian_updates(seed + 1, F)
    attack = size * (attack[:1].expand_as(attack) if together else attack)
    pipeline = Pipeline(RULES[rule], pre_aggregate=[STEPS[name]])
    result = pipeline(torch.cat([attack, honest]), round_facts(n, seed), {}).result
    centre = honest.mean(dim=0)
    assert (result.update - centre).norm() <= 2 * (honest - centre).norm(dim=1).max()
    assert result.weights.sum().item() == pytest.approx(1, abs=1e-5)


@every_step()
def test_what_it_makes_for_every_pair_of_clients_is_known_and_no_more_than_five_matrices(name):
    n, pipeline = 100, Pipeline(coordinate_median, pre_aggregate=[STEPS[name]])
    with CountedTensors() as count:
        pipeline(gaussian_updates(8, n), round_facts(n, seed=8), {})
    assert 8 * n**2 < count.peak < 8 * (5 * n**2 + 40 * n)
    assert pipeline.compares_pairs
