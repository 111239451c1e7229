"""Truths that hold for every rule. A rule that lacks one is left out by name, with the reason."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from a_round import round_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pretended_device import ELSEWHERE, PretendedDevice

from clients.device_memory import CountedTensors
from strategies import aggregation
from strategies.aggregation import (
    Aggregate,
    TooFewClientsError,
    alignins,
    blocks,
    bulyan,
    caf,
    centred_clipping,
    coordinate_median,
    deepsight,
    dnc,
    error_rate_rejection,
    feddlad,
    flame,
    flare,
    fldetector,
    fltrust,
    foolsgold,
    freqfed,
    geometric_median,
    iterative_multi_krum,
    k_loss,
    k_norm,
    krum,
    lasa,
    loss_rejection,
    mean,
    mean_around_median,
    minimum_diameter,
    multi_krum,
    norm_clipping,
    rflbat,
    robust_learning_rate,
    sign_guard,
    trimmed_mean,
    union_rejection,
    weak_dp,
)
from strategies.aggregation import aggregate as sums
from strategies.aggregation.traits import traits_of
from strategies.pipeline import Pipeline, RoundFacts

N, F, D = 11, 2, 6
OUTPUT_LAYER = {"weight": slice(0, 4), "bias": slice(4, 6)}

RULES: dict[str, Callable[..., Aggregate]] = {
    "alignins": alignins,
    "bulyan": partial(bulyan, n_malicious=F),
    "caf": partial(caf, n_malicious=F),
    "centred_clipping": partial(centred_clipping, radius=1.5, n_iterations=2),
    "coordinate_median": coordinate_median,
    "deepsight": partial(deepsight, n_samples=5, layers=OUTPUT_LAYER),
    "deepsight_without_bias": partial(deepsight, n_samples=5),
    "dnc": partial(dnc, n_malicious=F),
    "error_rate_rejection": partial(error_rate_rejection, n_malicious=F),
    "feddlad": feddlad,
    "flame": partial(flame, noise_factor=0.0),
    "flame_of_updates": partial(flame, noise_factor=0.0, received=None),
    "flare": flare,
    "fldetector": fldetector,
    "fltrust": fltrust,
    "foolsgold": foolsgold,
    "freqfed": freqfed,
    "freqfed_of_updates": partial(freqfed, received=None),
    "geometric_median": geometric_median,
    "iterative_multi_krum": partial(iterative_multi_krum, n_malicious=F),
    "k_loss": partial(k_loss, n_malicious=F),
    "k_norm": partial(k_norm, n_malicious=F),
    "krum": partial(krum, n_malicious=F),
    "lasa": lasa,
    "loss_rejection": partial(loss_rejection, n_malicious=F),
    "mean": mean,
    "mean_around_median": partial(mean_around_median, n_malicious=F),
    "minimum_diameter": partial(minimum_diameter, n_malicious=F),
    "multi_krum": partial(multi_krum, n_malicious=F),
    "norm_clipping": norm_clipping,
    "norm_clipping_fixed": partial(norm_clipping, max_norm=1.5),
    "rflbat": rflbat,
    "robust_learning_rate": partial(robust_learning_rate, threshold=4),
    "sign_guard": partial(sign_guard, sign_fraction=1.0),
    "trimmed_mean": partial(trimmed_mean, n_malicious=F),
    "union_rejection": partial(union_rejection, n_malicious=F),
    "weak_dp": partial(weak_dp, max_norm=1.5, noise_std=0.0),
}

FROM_THE_ORIGIN = "it measures norms or directions from the origin"
NOT_TRANSLATION_EQUIVARIANT = {
    "alignins": FROM_THE_ORIGIN,
    "centred_clipping": "it begins at 0",
    "deepsight": FROM_THE_ORIGIN,
    "deepsight_without_bias": FROM_THE_ORIGIN,
    "error_rate_rejection": "the server's validation set stays where it is",
    "feddlad": FROM_THE_ORIGIN,
    "flame": FROM_THE_ORIGIN,
    "flame_of_updates": FROM_THE_ORIGIN,
    "flare": "the server's data stay where they are",
    "fltrust": FROM_THE_ORIGIN,
    "foolsgold": FROM_THE_ORIGIN,
    "freqfed": FROM_THE_ORIGIN,
    "freqfed_of_updates": FROM_THE_ORIGIN,
    "k_norm": FROM_THE_ORIGIN,
    "lasa": FROM_THE_ORIGIN,
    "loss_rejection": "the server's validation set stays where it is",
    "norm_clipping": FROM_THE_ORIGIN,
    "norm_clipping_fixed": FROM_THE_ORIGIN,
    "rflbat": FROM_THE_ORIGIN,
    "robust_learning_rate": "signs are taken from the origin",
    "sign_guard": FROM_THE_ORIGIN,
    "union_rejection": "the server's validation set stays where it is",
    "weak_dp": FROM_THE_ORIGIN,
}
IN_PARAMETER_UNITS = "its bound is in parameter units"
NOT_SCALE_EQUIVARIANT = {
    "centred_clipping": IN_PARAMETER_UNITS,
    "deepsight": "the received model stays as it is",
    "deepsight_without_bias": "the received model stays as it is",
    "error_rate_rejection": "the server's validation set stays where it is",
    "feddlad": "the received model stays as it is",
    "flame": "the received model stays as it is",
    "flare": "the server's data stay where they are",
    "fltrust": "the result has the size of the server's own update",
    "freqfed": "the received model stays as it is",
    "loss_rejection": "the server's validation set stays where it is",
    "norm_clipping_fixed": IN_PARAMETER_UNITS,
    "union_rejection": "the server's validation set stays where it is",
    "weak_dp": IN_PARAMETER_UNITS,
}
NOT_THE_MEAN_WHEN_ALL_AGREE = {
    "centred_clipping": "what all agree on may be further away than the radius",
    "foolsgold": "clients that agree are what it takes for sybils",
    "fltrust": "the result has the size of the server's own update",
    "lasa": "it sets the smallest values to 0",
    "norm_clipping_fixed": "the bound may be shorter than what all agree on",
    "weak_dp": "the bound may be shorter than what all agree on",
}
NOT_BY_UPDATES_ALONE = {"k_loss": "it goes by the losses that clients report"}
ORDER_DECIDES = {
    "minimum_diameter": "several subsets may have the least diameter",
    "sign_guard": "of clusters of equal size scikit-learn's first is taken",
}
NOT_ROBUST = {
    "alignins": "attackers may be most of those that it keeps",
    "error_rate_rejection": "without one of two attackers the model is as bad as with both",
    "loss_rejection": "of two opposite attackers each makes up for the other",
    "union_rejection": "attackers cover for each other, as for either measure alone",
    "dnc": "an attacker can hide at the mean that another has dragged away",
    "flare": "nobody's weight is 0",
    "fldetector": "it averages all until its window is full",
    "foolsgold": "a lone attacker of any size keeps its weight",
    "freqfed": "an attacker in the usual direction may be of any size",
    "freqfed_of_updates": "an attacker in the usual direction may be of any size",
    "k_loss": "an attacker that reports the right loss is the only one heard",
    "mean": "one client moves it anywhere",
    "rflbat": "a huge update stands out only among more than 11 clients",
    "robust_learning_rate": "it flips directions and bounds no size",
}
MAY_HEAR_NOBODY = {
    "alignins",
    "deepsight",
    "deepsight_without_bias",
    "dnc",
    "fltrust",
    "foolsgold",
    "sign_guard",
}

BOUNDED = [
    name
    for name, rule in RULES.items()
    if name not in NOT_ROBUST and "n_malicious" in getattr(rule, "keywords", {})
]

seeds = st.integers(0, 2**31)
sizes = st.sampled_from([1e-3, 1.0, 30.0, 1e4, 1e15, 1e30])
few = settings(max_examples=5)


def every_rule(but: dict[str, str] | None = None) -> Any:
    left = [name for name in RULES if name not in (but or {})]
    return pytest.mark.parametrize("name", left)


def gaussian_updates(seed: int, n: int = N) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def round_facts(
    n: int,
    clients: torch.Tensor | None = None,
    seed: int = 0,
    reference_like: torch.Tensor | None = None,
    d: int = D,
) -> RoundFacts:
    """Return the facts of a round in which client i always knows the same things."""
    clients = torch.arange(n) if clients is None else clients
    reference = torch.randn(d, generator=torch.Generator().manual_seed(seed + 2))
    if reference_like is not None:
        reference = reference.to(reference_like)

    def evaluate(update: torch.Tensor) -> tuple[float, float]:
        loss = torch.linalg.vector_norm(update.double().cpu() - 1).item()
        return min(round(loss) / 10, 1), loss  # error rates are often equal

    def respond(update: torch.Tensor, n_inputs: int) -> torch.Tensor:
        inputs = torch.rand(n_inputs, 3, generator=torch.Generator().manual_seed(seed))
        return inputs.to(update) @ (reference + update)[:6].view(2, 3).T

    def represent(update: torch.Tensor) -> torch.Tensor:
        return respond(update, 4)

    return round_of(
        n,
        clients=clients,
        losses=((7 * clients + seed) % 13).double(),
        confidences=torch.ones(len(clients), dtype=torch.float64),
        received=lambda: 3 * reference,
        layers={"weight": slice(0, d)},
        reference=lambda: reference,
        evaluate=evaluate,
        respond=respond,
        represent=represent,
        rng=np.random.default_rng(seed),
    )


def aggregate(
    name: str, updates: torch.Tensor, clients: torch.Tensor | None = None, seed: int = 0
) -> Aggregate:
    facts = round_facts(len(updates), clients, seed)
    return Pipeline(RULES[name])(updates.clone(), facts, {}).result


def assert_close(actual: torch.Tensor, expected: torch.Tensor, size: float = 1.0) -> None:
    torch.testing.assert_close(
        actual, expected.to(actual.dtype), rtol=1e-4, atol=1e-5 * size, equal_nan=False
    )


@every_rule(but=NOT_BY_UPDATES_ALONE)
@given(seed=seeds, n=st.integers(N, 40))
@few
def test_copies_are_heard_and_suspected_alike(name, seed, n):
    updates = gaussian_updates(seed, n)
    copies = [1, 4, n - 2, n - 1]
    updates[copies] = updates[4].clone()
    result = aggregate(name, updates, seed=seed)
    for figures in (result.weights, result.suspicion):
        assert_close(figures[copies], figures[copies].mean().expand(4))


@every_rule(but=ORDER_DECIDES)
@given(seed=seeds)
@few
def test_the_order_of_clients_is_irrelevant(name, seed):
    updates = gaussian_updates(seed)
    updates[:, D // 2 :].round_().add_(0.1)  # equal values, which do not add up to 0
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
    assert total == pytest.approx(1, abs=1e-5) or (total == 0 and name in MAY_HEAR_NOBODY)


@every_rule(but=NOT_ROBUST)
@given(
    seed=seeds,
    size=sizes,
    shape=st.sampled_from(["together", "apart", "against", "outbidding"]),
    first=st.booleans(),
)
@settings(max_examples=40)
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
    reach = max(reach_of(honest), 5.0)  # FLTrust goes as far as the server's own update
    assert torch.linalg.vector_norm(update - centre).item() < 4 * reach


@pytest.mark.parametrize("name", BOUNDED)
@given(seed=seeds, size=sizes, f=st.integers(1, 3), together=st.booleans())
@settings(max_examples=20)
def test_no_more_clients_are_needed_than_the_bound_says(name, seed, size, f, together):
    bound = traits_of(getattr(aggregation, name)).bound
    assert bound is not None
    n = bound.per_malicious * f + bound.more
    honest, attack = 1 + gaussian_updates(seed, n - f), gaussian_updates(seed + 1, f)
    attack = size * (attack[:1].expand_as(attack) if together else attack)
    rule = partial(getattr(aggregation, name), n_malicious=f)
    update = rule(torch.cat([attack, honest])).update
    assert torch.linalg.vector_norm(update - honest.mean(dim=0)).item() < 4 * reach_of(honest)


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if traits_of(rule).bound])
def test_one_client_fewer_than_the_bound_says_is_refused(name):
    rule, bound = RULES[name], traits_of(RULES[name]).bound
    assert bound is not None
    rule = getattr(rule, "func", rule)
    assert f"{bound}, else TooFewClientsError" in " ".join(str(rule.__doc__).split())
    n = bound.per_malicious * F + bound.more
    aggregate(name, gaussian_updates(0, n))
    with pytest.raises(TooFewClientsError, match=f"^{rule.__name__} needs"):
        aggregate(name, gaussian_updates(0, n - 1))


def reach_of(honest: torch.Tensor) -> float:
    """Return how far from the origin an honest client goes."""
    return torch.linalg.vector_norm(honest, dim=1).max().item()


@every_rule(but={"caf": "it takes weight away bit by bit, from some clients all of it"})
def test_a_weight_of_zero_is_the_choice_of_a_rule_that_says_it_selects(name):
    d = 200  # coordinates: by chance nobody is far out in all of them
    updates = torch.randn(N, d, generator=torch.Generator().manual_seed(0))
    weights = Pipeline(RULES[name])(updates, round_facts(N, d=d), {}).result.weights
    assert traits_of(RULES[name]).selects or (weights > 0).all()


@every_rule(but={"centred_clipping": "the centre that it moves is in the update too"})
@given(seed=seeds)
@few
def test_the_update_is_made_of_what_the_ledger_says(name, seed):
    updates = gaussian_updates(seed)
    result = aggregate(name, updates, seed=seed)
    if result.pulls is not None:
        assert_close(result.pulls.sum(), result.update.double().square().sum())
        return
    heard = result.weights if result.multipliers is None else result.multipliers
    assert_close(heard @ updates.double(), result.update)


@every_rule()
def test_updates_of_length_zero_leave_everything_finite(name):
    updates = gaussian_updates(8)
    for silent in (updates[:1], updates):  # one client, then all
        silent.zero_()
        result = aggregate(name, updates)
        multipliers = result.weights if result.multipliers is None else result.multipliers
        for figures in (result.update, result.weights, result.suspicion, multipliers):
            assert figures.isfinite().all()


@every_rule()
def test_the_updates_are_left_as_they_were(name):
    updates = gaussian_updates(5)
    before = updates.clone()
    Pipeline(RULES[name])(updates, round_facts(N), {})
    assert torch.equal(updates, before)


@every_rule()
def test_rows_may_be_parts_of_longer_ones(name):
    updates = gaussian_updates(3)
    longer = torch.cat([updates, torch.full((N, 2), 1e9)], dim=1)
    same = Pipeline(RULES[name])(longer[:, :D], round_facts(N), {}).result.update
    assert_close(same, aggregate(name, updates).update)


@every_rule()
def test_an_update_in_float64_stays_in_float64(name):
    updates = gaussian_updates(3).double()
    result = Pipeline(RULES[name])(updates, round_facts(N, reference_like=updates), {}).result
    assert result.update.dtype == torch.float64
    assert result.weights.dtype == torch.float64
    assert result.suspicion.dtype == torch.float64


@every_rule()
def test_a_client_of_prior_zero_does_not_count(name):
    updates = gaussian_updates(4)
    facts = round_facts(N)
    facts.prior[3] = 0
    facts.prior.div_(facts.prior.sum())
    assert Pipeline(RULES[name])(updates, facts, {}).result.weights[3] == 0


@every_rule()
def test_what_compares_every_pair_of_clients_is_known_to_and_takes_five_matrices(name):
    n, pipeline = 60, Pipeline(RULES[name])
    with CountedTensors() as count:
        pipeline(gaussian_updates(8, n), round_facts(n), {})
    assert count.peak < 8 * (5 * n**2 + 40 * n)  # and a few vectors
    assert pipeline.compares_pairs == (count.peak > 8 * n**2)


@every_rule()
def test_no_second_matrix_is_made_that_is_not_told_of(monkeypatch, name):
    # A tenth of a matrix that would be worked on by blocks, in blocks of a tenth.
    for module, sizes in ((sums, ("SMALL", "SUM_WIDTH")), (blocks, ("CPU_BLOCK", "ROW_BLOCK"))):
        for size in sizes:
            monkeypatch.setattr(module, size, getattr(module, size) // 10)
    n, d, pipeline = 40, 25_000, Pipeline(RULES[name])
    updates = torch.randn(1, d, generator=torch.Generator().manual_seed(0)).repeat(n, 1)
    with CountedTensors() as count:
        pipeline(updates, round_facts(n, d=d), {})
    assert count.peak < (0.75 + pipeline.n_copies) * updates.nbytes  # and a few rows and blocks


@every_rule()
def test_a_gpu_says_the_same(name):
    updates = gaussian_updates(7)
    here = Pipeline(RULES[name])(updates.clone(), round_facts(N), {}).result
    at_hand = torch.cuda.is_available()
    device = torch.device("cuda") if at_hand else ELSEWHERE
    with nullcontext() if at_hand else PretendedDevice():
        facts = round_facts(N, reference_like=updates.to(device))
        there = Pipeline(RULES[name])(updates.to(device), facts, {}).result
        for ours, theirs in zip(here[:3], there[:3], strict=True):
            assert theirs.device.type == device.type
            assert_close(theirs.cpu(), ours)
