from functools import partial

import numpy as np
import pytest
import torch
from a_round import round_of
from pretended_device import ELSEWHERE, PretendedDevice

from clients.device_memory import CountedTensors
from strategies.aggregation import mean
from strategies.oracle import Oracle
from strategies.pipeline import Pipeline
from strategies.reweighting import fedmgda_plus
from strategies.reweighting.min_norm import min_norm_mixture

AXES = torch.tensor([[3.0, 0.0], [0.0, 4.0]])  # lengths 3 and 4, and nothing in common


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def equal(n: int) -> torch.Tensor:
    return torch.full((n,), 1 / n, dtype=torch.float64)


def moved(updates: torch.Tensor, order="filter_then_lift", prior=None, **parameters):
    facts = round_of(len(updates), **({} if prior is None else {"prior": prior}))
    pipeline = Pipeline(mean, partial(fedmgda_plus, **parameters), order)
    return pipeline(updates.clone(), facts, {}).result.update


def scattered(n: int, d: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) + torch.randn(d, generator=generator)


def unit_gram(updates: torch.Tensor) -> torch.Tensor:
    units = torch.nn.functional.normalize(updates.double(), dim=1)
    return units @ units.T


@pytest.mark.parametrize("order", ["filter_then_lift", "lift_then_filter"])
def test_epsilon_of_zero_averages_directions_by_the_prior(order):
    step = moved(AXES, order, doubles(0.8, 0.2), epsilon=0.0, length=2.0)
    torch.testing.assert_close(step, torch.tensor([1.6, 0.4]))


@pytest.mark.parametrize("order", ["filter_then_lift", "lift_then_filter"])
def test_weights_go_towards_the_shortest_mixture_as_far_as_epsilon_lets_them(order):
    # The shortest mixture of (1, 0) and (0, 1) has weights 1/2.
    step = moved(AXES, order, doubles(0.8, 0.2), epsilon=0.1, length=2.0)
    torch.testing.assert_close(step, torch.tensor([1.4, 0.6]))
    lift = fedmgda_plus(AXES, doubles(0.8, 0.2), epsilon=0.1, length=2.0)
    torch.testing.assert_close(lift.weights, doubles(0.7 / 3, 0.3 / 4) / (0.7 / 3 + 0.3 / 4))
    assert lift.step == pytest.approx(2 * (0.7 / 3 + 0.3 / 4))


def test_what_lies_between_others_is_not_heard():
    between = torch.cat([AXES, torch.tensor([[5.0, 5.0]])])
    lift = fedmgda_plus(between, equal(3), epsilon=1.0)
    torch.testing.assert_close(lift.weights, doubles(4 / 7, 3 / 7, 0))


def test_a_step_in_which_all_agree_has_the_median_length():
    updates = torch.tensor([[3.0, 4.0]]) * torch.tensor([[0.5], [2.0], [9.0]])
    torch.testing.assert_close(moved(updates, epsilon=0.1), torch.tensor([6.0, 8.0]))


def test_with_epsilon_of_one_the_step_goes_along_with_every_update():
    updates = scattered(12, 60)
    step = moved(updates, epsilon=1.0, length=1.0)
    along = torch.nn.functional.normalize(updates, dim=1) @ step
    assert (along >= step @ step - 1e-6).all()
    plain = torch.nn.functional.normalize(updates, dim=1).mean(dim=0)
    assert step.norm() < plain.norm()


def test_whoever_agrees_with_nobody_is_lifted_honest_or_not():
    together = torch.tensor([1.0, 0, 0]) + 0.1 * scattered(6, 3)
    updates = torch.cat([together, torch.tensor([[0.0, 1, 0], [0, 0, -1]])])
    lift = fedmgda_plus(updates, equal(8), epsilon=0.1)
    shares = lift.weights * updates.norm(dim=1)
    torch.testing.assert_close((shares / shares.sum())[6:], doubles(0.225, 0.225))


def test_without_a_bound_on_weights_one_client_stops_the_server():
    honest = scattered(7, 30)
    updates = torch.cat([honest, -0.1 * honest.mean(dim=0, keepdim=True)])
    assert moved(updates, epsilon=1.0, length=1.0).norm() < 1e-5
    assert moved(updates, epsilon=0.1, length=1.0).norm() > 0.1


def test_a_longer_update_is_not_heard_more():
    updates = scattered(7, 5)
    boosted = updates * torch.tensor([1e6, 1, 1, 1, 1, 1, 1])[:, None]
    expected = moved(updates, epsilon=0.1, length=1.0)
    torch.testing.assert_close(moved(boosted, epsilon=0.1, length=1.0), expected)


@pytest.mark.parametrize("lifting", ["ideal", "worst_case"])
def test_an_oracle_corrects_weights_of_directions(lifting):
    updates = scattered(7, 30)  # client 0 is an attacker, client 1 a minority
    lift = fedmgda_plus(updates, equal(7), epsilon=0.1, length=2.0)
    shares = lift.weights * updates.norm(dim=1)
    shares = shares / shares.sum()
    own = 1 if lifting == "ideal" else 0
    expected = torch.full((7,), shares[2:].mean().item(), dtype=torch.float64)
    expected[own] = shares[own]
    step = 2 * expected @ torch.nn.functional.normalize(updates, dim=1).double() / expected.sum()
    for boost in (1.0, 1e6):
        boosted = torch.cat([boost * updates[:1], updates[1:]])
        pipeline = Pipeline(
            mean,
            partial(fedmgda_plus, epsilon=0.1, length=2.0),
            oracle=Oracle(minority={1}, attackers={0}, lifting=lifting),
        )
        moves = pipeline(boosted, round_of(7), {}).result.update
        torch.testing.assert_close(moves.double(), step, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("n", "d"), [(9, 40), (9, 3)])  # in the second many mixtures are shortest
def test_copies_share_alike_and_order_is_irrelevant(n, d):
    updates = scattered(n, d)
    updates[[2, 5]] = updates[7].clone()
    lift = fedmgda_plus(updates, equal(n), epsilon=0.3)
    assert lift.weights[2] == lift.weights[5] == lift.weights[7]
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    permuted = fedmgda_plus(updates[order], equal(n), epsilon=0.3)
    torch.testing.assert_close(permuted.weights, lift.weights[order])
    assert permuted.step == pytest.approx(lift.step)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.0, 1e-44, 1e38])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_nothing_and_giants_give_a_finite_step(dtype, size, n):
    updates = scattered(5, 4).to(dtype)
    updates[:n] = size * updates[:n].sign()
    for length in (None, 1.0):
        step = moved(updates, epsilon=0.1, length=length)
        assert step.dtype == dtype
        assert step.isfinite().all()


def test_one_client_is_heard_alone():
    assert moved(torch.tensor([[3.0, 4.0]]), epsilon=0.1).tolist() == pytest.approx([3, 4])


def test_a_short_update_is_lengthened_tenfold_at_most():
    updates = torch.tensor([[3.0, 0.0], [3.0, 0.0], [0.0, 0.003]])
    step = moved(updates, epsilon=0.0)
    torch.testing.assert_close(step, torch.tensor([2.0, 0.01]))


def test_a_client_of_prior_zero_does_not_count():
    updates = scattered(5, 20)
    prior = doubles(0.25, 0.25, 0, 0.25, 0.25)
    lift = fedmgda_plus(updates, prior, epsilon=0.1)
    others = fedmgda_plus(updates[prior > 0], equal(4), epsilon=0.1)
    assert lift.weights[2] == 0
    torch.testing.assert_close(lift.weights[prior > 0], others.weights)
    assert lift.step == pytest.approx(others.step)


@pytest.mark.parametrize("epsilon", [0.02, 0.1, 1.0])
def test_the_mixture_is_that_of_a_general_solver(epsilon):
    from scipy.optimize import Bounds, LinearConstraint, minimize

    prior = torch.arange(1, 9).double() / 36
    gram = unit_gram(scattered(8, 12))
    low, high = (prior - epsilon).clamp(min=0), (prior + epsilon).clamp(max=1)
    found = minimize(
        lambda x: x @ gram.numpy() @ x,
        prior.numpy(),
        jac=lambda x: 2 * gram.numpy() @ x,
        method="SLSQP",
        bounds=Bounds(low.numpy(), high.numpy()),
        constraints=LinearConstraint(np.ones((1, 8)), 1, 1),
        options={"ftol": 1e-15},
    )
    ours = min_norm_mixture(gram, prior, epsilon)
    torch.testing.assert_close(ours, torch.from_numpy(found.x), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("n", "d"), [(60, 500), (60, 8)])
@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1.0])
def test_nobody_could_give_weight_to_another_and_make_the_mixture_shorter(n, d, epsilon):
    gram, prior = unit_gram(scattered(n, d)), equal(n)
    weights = min_norm_mixture(gram, prior, epsilon)
    assert weights.sum().item() == pytest.approx(1)
    assert ((weights - prior).abs() <= epsilon + 1e-9).all()
    slope = gram @ weights
    gives = slope[weights > (prior - epsilon).clamp(min=0) + 1e-8]
    takes = slope[weights < prior + epsilon - 1e-8]
    assert gives.max() <= takes.min() + 1e-7


@pytest.mark.parametrize("epsilon", [1e-18, 0.1, 1.0])
def test_whoever_claims_all_examples_there_are_leaves_others_a_share(epsilon):
    claimed = doubles(2.0**53, *([1.0] * 6), 1e-300)
    weights = min_norm_mixture(unit_gram(scattered(8, 20)), claimed / claimed.sum(), epsilon)
    assert weights.sum().item() == pytest.approx(1)
    assert (weights[1:] <= epsilon + 2e-9).all()
    assert weights[1:].sum() >= min(0.1, epsilon) - 2e-9


def test_of_mixtures_that_are_all_as_short_the_prior_is_taken():
    prior = doubles(0.5, 0.3, 0.2)
    weights = min_norm_mixture(torch.ones(3, 3, dtype=torch.float64), prior, 1.0)
    torch.testing.assert_close(weights, prior)


def test_memory_is_that_of_five_matrices_of_pairs():
    n = 60
    pipeline = Pipeline(mean, partial(fedmgda_plus, epsilon=0.1))
    assert pipeline.compares_pairs
    updates = scattered(n, 40)
    with CountedTensors() as count:
        fedmgda_plus(updates, equal(n), epsilon=0.1)
    assert 8 * n**2 < count.peak < 8 * (5 * n**2 + 60 * n)


def test_a_gpu_says_the_same_and_is_waited_for_as_often_for_many_clients():
    reads = []
    for n in (8, 30):
        updates = scattered(n, 20)
        here = fedmgda_plus(updates, equal(n), epsilon=0.1)
        with PretendedDevice() as device:
            there = fedmgda_plus(updates.to(ELSEWHERE), equal(n), epsilon=0.1)
            reads.append(len(device.reads))
        torch.testing.assert_close(there.weights, here.weights)
        assert there.step == pytest.approx(here.step)
    assert reads[0] == reads[1] <= 3
