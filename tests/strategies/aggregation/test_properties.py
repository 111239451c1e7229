"""Truths that hold for every rule. A rule that lacks one is left out by name, with the reason."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.aggregation import (
    Aggregate,
    fltrust,
    krum,
    mean,
    multi_krum,
    norm_clipping,
    trimmed_mean,
)
from strategies.pipeline import Pipeline, RoundFacts

N, F, D = 11, 2, 6

RULES: dict[str, Callable[..., Aggregate]] = {
    "fltrust": fltrust,
    "krum": partial(krum, n_malicious=F),
    "mean": mean,
    "multi_krum": partial(multi_krum, n_malicious=F),
    "norm_clipping": norm_clipping,
    "norm_clipping_fixed": partial(norm_clipping, max_norm=1.5),
    "trimmed_mean": partial(trimmed_mean, n_malicious=F),
}

NOT_TRANSLATION_EQUIVARIANT = {
    "fltrust": "cosines are taken from the origin",
    "norm_clipping": "norms are taken from the origin",
    "norm_clipping_fixed": "norms are taken from the origin",
}
NOT_SCALE_EQUIVARIANT = {
    "fltrust": "the result has the size of the server's own update",
    "norm_clipping_fixed": "the bound is in parameter units",
}
NOT_THE_MEAN_WHEN_ALL_AGREE = {
    "fltrust": "the result has the size of the server's own update",
    "norm_clipping_fixed": "the bound may be shorter than what all agree on",
}
NOT_ROBUST = {"mean": "one client moves it anywhere"}

seeds = st.integers(0, 2**31)
few = settings(max_examples=20, deadline=None)


def every_rule(but: dict[str, str] | None = None) -> Any:
    left = [name for name in RULES if name not in (but or {})]
    return pytest.mark.parametrize("name", left)


def gaussian_updates(seed: int, n: int = N) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def aggregate(
    name: str, updates: torch.Tensor, clients: torch.Tensor | None = None, seed: int = 0
) -> Aggregate:
    """Run a rule with the facts of a round in which client i always knows the same things."""
    clients = torch.arange(len(updates)) if clients is None else clients
    reference = torch.randn(D, generator=torch.Generator().manual_seed(seed + 2))
    facts = RoundFacts(
        round_=1,
        clients=clients,
        prior=torch.full((len(updates),), 1 / len(updates), dtype=torch.float64),
        losses=((7 * clients + seed) % 13).double(),
        server_update=lambda: reference,
    )
    return Pipeline(RULES[name])(updates.clone(), facts, {}).result


def assert_close(actual: torch.Tensor, expected: torch.Tensor, size: float = 1.0) -> None:
    torch.testing.assert_close(
        actual, expected.to(actual.dtype), rtol=1e-4, atol=1e-5 * size, equal_nan=False
    )


@every_rule()
@given(seed=seeds)
@few
def test_the_order_of_clients_is_irrelevant(name, seed):
    updates = gaussian_updates(seed)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    original = aggregate(name, updates, seed=seed)
    permuted = aggregate(name, updates[order], order, seed=seed)
    assert_close(permuted.update, original.update)
    assert_close(permuted.weights, original.weights[order])
    assert_close(permuted.suspicion, original.suspicion[order])


@every_rule(but=NOT_TRANSLATION_EQUIVARIANT)
@given(seed=seeds)
@few
def test_shifting_every_client_shifts_the_result(name, seed):
    updates, shift = gaussian_updates(seed), gaussian_updates(seed + 1)[0]
    original, shifted = aggregate(name, updates), aggregate(name, updates + shift)
    assert_close(shifted.update, original.update + shift, size=10)
    assert_close(shifted.weights, original.weights, size=10)


@every_rule(but=NOT_SCALE_EQUIVARIANT)
@given(seed=seeds, exponent=st.integers(-40, 40))
@few
def test_scaling_every_client_scales_the_result(name, seed, exponent):
    updates, scale = gaussian_updates(seed), 2.0**exponent
    original, scaled = aggregate(name, updates), aggregate(name, scale * updates)
    assert_close(scaled.update, scale * original.update, size=scale)
    assert_close(scaled.weights, original.weights)


@every_rule(but=NOT_THE_MEAN_WHEN_ALL_AGREE)
@given(seed=seeds)
@few
def test_when_all_clients_agree_the_result_is_what_they_agree_on(name, seed):
    agreed = gaussian_updates(seed)[0]
    assert_close(aggregate(name, agreed.repeat(N, 1)).update, agreed)


@every_rule()
@given(seed=seeds, spread=st.sampled_from([0.0, 1e-3, 1.0, 1e3]))
@few
def test_weights_are_shares(name, seed, spread):
    updates = gaussian_updates(seed)[:1] + spread * gaussian_updates(seed + 1)
    weights = aggregate(name, updates, seed=seed).weights
    assert (weights >= 0).all()
    total = weights.sum().item()
    # FLTrust may trust nobody.
    assert total == pytest.approx(1, abs=1e-5) or (total == 0 and name == "fltrust")


@every_rule(but=NOT_ROBUST)
@given(
    seed=seeds,
    size=st.sampled_from([1e-3, 1.0, 30.0, 1e4, 1e15, 1e30]),
    shape=st.sampled_from(["together", "apart", "against", "outbidding"]),
    first=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_f_arbitrary_updates_cannot_carry_the_result_away(name, seed, size, shape, first):
    honest = 1 + gaussian_updates(seed, N - F)
    centre = honest.mean(dim=0)
    attack = {
        "together": gaussian_updates(seed + 1, 1).repeat(F, 1),
        "apart": gaussian_updates(seed + 1, F),
        "against": -centre.repeat(F, 1),
        "outbidding": centre * torch.tensor([[1.0], [10.0]]),
    }[shape]
    rows = [size * attack, honest] if first else [honest, size * attack]
    update = aggregate(name, torch.cat(rows), seed=seed).update
    reach = max(torch.linalg.vector_norm(row).item() for row in honest)
    reach = max(reach, 5.0)  # FLTrust goes as far as the server's own update
    assert torch.linalg.vector_norm(update - centre).item() < 4 * reach


@every_rule()
def test_the_updates_are_left_as_they_were(name):
    updates = gaussian_updates(5)
    before = updates.clone()
    reference = torch.ones(D)
    rule = RULES[name]
    facts = {"reference": reference} if name == "fltrust" else {}
    rule(updates, **facts)
    assert torch.equal(updates, before)


@every_rule()
def test_an_update_in_float64_stays_in_float64(name):
    facts = {"reference": torch.ones(D, dtype=torch.float64)} if name == "fltrust" else {}
    result = RULES[name](gaussian_updates(3).double(), **facts)
    assert result.update.dtype == torch.float64
    assert result.weights.dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_rule()
def test_a_gpu_says_the_same(name):
    updates = gaussian_updates(7)
    facts = {"reference": torch.ones(D)} if name == "fltrust" else {}
    here = RULES[name](updates, **facts)
    there = RULES[name](updates.cuda(), **{k: v.cuda() for k, v in facts.items()})
    for ours, theirs in zip(here, there, strict=True):
        assert_close(theirs.cpu(), ours)
