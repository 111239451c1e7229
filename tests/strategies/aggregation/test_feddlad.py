from functools import partial

import numpy as np
import pytest
import torch

from strategies.aggregation import feddlad
from strategies.aggregation.feddlad import _outlier_factors

RECEIVED = torch.tensor([0.0, 0.0, 10.0])
# Three models are close together. Of the others one goes half their way, one away from them.
UPDATES = torch.tensor([[3.0, 0, 0], [3, 0.001, 0], [3, -0.001, 0], [8, 6, 0], [-1, 8, 0]])
unflipped = partial(feddlad, received=RECEIVED, trusted_fraction=0.6, iqr_factor=99.0)


def test_the_outlier_factor_compares_the_chain_of_a_point_with_those_of_its_neighbours():
    # With two neighbours the first step of a chain counts 2/3, the second 1/3. The steps are 1 and
    # 2 from 0 over 1 to 3; 2 and 1 from 3 over 1 to 0; 4 and 2 from 7 over 3 to 1.
    points = np.array([[0.0], [1.0], [3.0], [7.0]])
    expected = [8 / 9, 8 / 9, 5 / 4, 20 / 9]  # chains of 4/3, 4/3, 5/3 and 10/3
    np.testing.assert_allclose(_outlier_factors(points, 2), expected)


def test_who_is_most_like_the_trusted_is_pardoned_at_their_length():
    result = unflipped(UPDATES, pardoned_fraction=0.2)
    expected = torch.tensor([3 * 3 / 4 + 2.4 / 4, 1.8 / 4, 0])
    torch.testing.assert_close(result.update, expected, rtol=1e-4, atol=1e-4)
    expected = torch.tensor([1, 1, 1, 0.3, 0]).double() / 3.3
    torch.testing.assert_close(result.weights, expected, rtol=1e-4, atol=1e-4)
    assert result.suspicion[3:].min() > result.suspicion[:3].max()


def test_who_goes_against_the_trusted_is_not_pardoned_however_many_may_be():
    few, many = (unflipped(UPDATES, pardoned_fraction=share) for share in (0.2, 0.4))
    assert torch.equal(many.update, few.update)
    nobody = unflipped(UPDATES, pardoned_fraction=0.0)
    torch.testing.assert_close(nobody.update, torch.tensor([3.0, 0, 0]), rtol=0, atol=1e-4)


def test_the_pardoned_weigh_by_their_cosines_and_as_a_group_by_their_number():
    updates = UPDATES.clone()
    updates[4] = torch.tensor([3.0, 4, 0])  # clipped to (1.8, 2.4); the cosines are 0.8 and 0.6
    result = unflipped(updates, pardoned_fraction=0.4)
    pardoned = (0.8 * torch.tensor([2.4, 1.8, 0]) + 0.6 * torch.tensor([1.8, 2.4, 0])) / 1.4
    expected = 0.6 * torch.tensor([3.0, 0, 0]) + 0.4 * pardoned
    torch.testing.assert_close(result.update, expected, rtol=1e-4, atol=1e-3)


def test_the_prior_weighs_the_trusted_and_the_pardoned_among_themselves():
    updates = UPDATES.clone()
    updates[4] = torch.tensor([3.0, 4, 0])
    prior = torch.tensor([0.5, 0.1, 0, 0.1, 0.3]).double()
    result = unflipped(updates, pardoned_fraction=0.4, prior=prior)
    shares = [0.6 * 5 / 6, 0.6 / 6, 0, 0.4 * 0.08 / 0.26 * 0.3, 0.4 * 0.18 / 0.26 * 0.6]
    expected = torch.tensor(shares).double()
    torch.testing.assert_close(result.weights, expected / expected.sum(), rtol=1e-3, atol=1e-4)
    silent = torch.tensor([0, 0, 0, 0.5, 0.5]).double()
    assert unflipped(updates, pardoned_fraction=0.4, prior=silent).weights.tolist() == [0] * 5


def test_values_far_outside_the_quartiles_change_their_sign_and_those_at_the_limit_do_not():
    # In the first coordinate the quartiles are 2 and 4; all norms are √101.
    first = torch.tensor([1.0, 2, 3, 4, 10])
    updates = torch.stack([first, (101 - first**2).sqrt(), torch.zeros(5)], dim=1).double()
    everybody = partial(feddlad, updates, RECEIVED.double(), trusted_fraction=1.0)
    for factor, expected in ((0.5, 0), (0.49, -2 / 5), (3.0, 4)):
        result = everybody(iqr_factor=factor)
        torch.testing.assert_close(result.update[0], torch.tensor(expected).double())
        torch.testing.assert_close(result.weights, torch.full((5,), 0.2).double())
        assert result.pulls is not None
        torch.testing.assert_close(result.pulls.sum(), result.update.square().sum())


def test_quartiles_are_those_of_all_clients_after_clipping():
    right = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [7, 0, 0], [9, 0, 0]])
    result = feddlad(right, RECEIVED, trusted_fraction=0.6, pardoned_fraction=0.4)
    torch.testing.assert_close(result.update, torch.tensor([1.0, 0, 0]))
    assert (result.weights > 0).all()


def test_of_two_clients_the_first_is_trusted_and_copies_share():
    two = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    assert feddlad(two, RECEIVED).weights.tolist() == [1, 0]
    copies = feddlad(two[[0, 0, 0, 0, 1]], RECEIVED, pardoned_fraction=0.0)
    assert copies.weights.tolist() == [0.25] * 4 + [0]


def test_equal_models_are_equally_connected_whatever_the_rounding():
    for seed in range(20):
        draws = torch.Generator().manual_seed(seed)
        received, update = torch.randn(2, 50, generator=draws)
        assert feddlad(update.repeat(6, 1), received).suspicion.tolist() == [0] * 6


def test_small_steps_of_a_large_model_lose_no_digits():
    draws = torch.Generator().manual_seed(0)
    updates, received = (
        1e-4 * torch.randn(12, 500, generator=draws),
        torch.randn(500, generator=draws),
    )
    models = updates.double() + received.double()
    cosines = torch.nn.functional.cosine_similarity(models[:, None], models, dim=2)
    expected = _outlier_factors((1 - cosines).numpy(), 11)
    np.testing.assert_allclose(feddlad(updates, received).suspicion, expected, rtol=1e-5)


def slow_feddlad(updates: np.ndarray, received: np.ndarray, c: float) -> np.ndarray:
    """Return the update, client by client, with 48 % trusted and 12 % pardoned."""
    n = len(updates)
    models = updates + received
    lengths = np.linalg.norm(models, axis=1)
    rows = 1 - models @ models.T / np.outer(lengths, lengths)
    apart = np.array([[np.linalg.norm(a - b) for b in rows] for a in rows])
    k = min(24, n - 1)
    paths = [sorted(range(n), key=lambda j, i=i: apart[i, j])[: k + 1] for i in range(n)]
    chains = []
    for path in paths:
        steps = [min(apart[path[j], path[i]] for i in range(j)) for j in range(1, k + 1)]
        parts = [2 * (k + 1 - j) / k / (k + 1) * step for j, step in enumerate(steps, start=1)]
        chains.append(sum(parts))
    factors = [chains[i] / np.mean([chains[j] for j in paths[i][1:]]) for i in range(n)]
    order = sorted(range(n), key=lambda i: factors[i])
    trusted, others = order[: round(0.48 * n)], order[round(0.48 * n) :]
    norms = np.linalg.norm(updates, axis=1)
    clip = np.median(norms[trusted])
    changed = updates * np.minimum(1, clip / norms)[:, None]
    first, third = np.percentile(changed, [25, 75], axis=0)
    margin = c * (third - first)
    changed[(changed < first - margin) | (changed > third + margin)] *= -1
    mean = changed[trusted].mean(axis=0)
    cosines = changed @ mean / np.linalg.norm(changed, axis=1) / np.linalg.norm(mean)
    best = sorted(others, key=lambda i: -cosines[i])[: round(0.12 * n)]
    pardoned = [i for i in best if cosines[i] > 0]
    total = len(trusted) * mean
    if pardoned:
        total = total + len(pardoned) * np.average(
            changed[pardoned], axis=0, weights=cosines[pardoned]
        )
    return total / (len(trusted) + len(pardoned))


@pytest.mark.parametrize("n", [3, 12, 25, 40])
def test_agrees_with_the_steps_one_by_one(n):
    draws = torch.Generator().manual_seed(n)
    updates = 0.1 * (torch.randn(n, 30, generator=draws) + torch.randn(1, 30, generator=draws))
    updates = (updates * (0.5 + torch.rand(n, 1, generator=draws))).double()
    received = torch.randn(30, generator=draws).double()
    expected = slow_feddlad(updates.numpy(), received.numpy(), 0.6)
    np.testing.assert_allclose(feddlad(updates, received).update, expected, rtol=1e-9)
