from functools import partial

import numpy as np
import pytest
import torch

from strategies.aggregation import flare, mean
from strategies.aggregation.flare import _discrepancies

# Each names two: 0 names 1 and 2.2; 1, 0 and 2.2; 2.2, 1 and 3.6; 3.6, 2.2 and 1; 7, 3.6 and 2.2.
UPDATES = torch.tensor([[0.0], [1.0], [2.2], [3.6], [7.0]])
COUNTS = torch.tensor([1.0, 3, 4, 2, 0]).double()

of_one_number = partial(flare, represent=lambda update: update[:1, None])


def test_trust_grows_with_how_many_count_a_client_among_the_nearer_half():
    result = of_one_number(UPDATES)
    torch.testing.assert_close(result.suspicion, 1 - COUNTS / 4)
    trust = torch.exp(COUNTS / 2)
    torch.testing.assert_close(result.weights, trust / trust.sum())
    torch.testing.assert_close(result.update, (trust @ UPDATES.double() / trust.sum()).float())


def test_temperature_is_in_units_of_the_mean_count_and_the_prior_multiplies_the_trust():
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0]).double()
    weights = of_one_number(UPDATES, temperature=0.5, prior=prior).weights
    trust = prior * torch.exp(COUNTS)  # as with BackFed, whose temperature is 1 / 2 here
    torch.testing.assert_close(weights, trust / trust.sum())


def represent(update: torch.Tensor) -> torch.Tensor:
    """Return three numbers of each of four examples."""
    inputs = torch.rand(4, 5, generator=torch.Generator().manual_seed(0)).to(update)
    return inputs @ update[:15].view(5, 3)


def slow_discrepancies(models: list[np.ndarray]) -> list[list[float]]:
    """Of models with three numbers for each of four examples."""

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.exp(-np.sum((x - y) ** 2) / 3))

    def apart(one: np.ndarray, other: np.ndarray) -> float:
        within = sum(
            kernel(each[i], each[j]) / 12
            for each in (one, other)
            for i in range(4)
            for j in range(4)
            if i != j
        )
        return within - 2 * sum(kernel(x, y) / 16 for x in one for y in other)

    return [[apart(one, other) for other in models] for one in models]


@pytest.mark.parametrize("n", [2, 6, 7])
def test_models_are_as_far_apart_as_the_unbiased_discrepancy_says(n):
    updates = torch.randn(n, 15, generator=torch.Generator().manual_seed(n)).double()
    models = [represent(row) for row in updates]
    apart = torch.tensor(slow_discrepancies([model.numpy() for model in models])).double()
    torch.testing.assert_close(_discrepancies(models), apart)
    apart.fill_diagonal_(torch.inf)
    counts = sum(row.argsort()[: n // 2].bincount(minlength=n) for row in apart)
    expected = 1 - torch.as_tensor(counts).double() / (n - 1)
    torch.testing.assert_close(flare(updates, represent).suspicion, expected)


def test_two_whose_representations_are_unlike_the_others_are_trusted_least():
    updates = 0.1 * torch.randn(9, 15, generator=torch.Generator().manual_seed(0))
    updates[[3, 6]] += 2
    weights = flare(updates, represent).weights
    assert set(weights.argsort()[:2].tolist()) == {3, 6}
    assert weights[[3, 6]].max() < 0.6 / 9


def test_whoever_answers_no_numbers_is_named_by_nobody():
    updates = torch.cat([UPDATES, torch.full((2, 1), 3e38)])

    def overflowing(update: torch.Tensor) -> torch.Tensor:
        return update[:1, None] + (update * 2 - update * 2)  # inf - inf

    assert flare(updates, overflowing).suspicion[5:].tolist() == [1, 1]
    torch.testing.assert_close(flare(updates[5:], overflowing).weights, torch.ones(2).double() / 2)


def test_where_all_representations_are_alike_it_is_the_mean():
    result = flare(UPDATES, lambda update: torch.ones(4, 3))  # without a hidden layer: the inputs
    torch.testing.assert_close(result.update, mean(UPDATES).update)
