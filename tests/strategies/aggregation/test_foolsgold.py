from math import log

import pytest
import torch

from strategies.aggregation import foolsgold
from strategies.aggregation.traits import traits_of

THREE = torch.tensor([0, 1, 2])


def with_cosines(cosines: list[list[float]]) -> torch.Tensor:
    return torch.linalg.cholesky(torch.tensor(cosines))


def test_weights_are_the_logit_of_what_is_not_similar():
    # Two have cosine 0.6, the third none: 1 - cs is 0.4, 0.4 and 1, capped at 0.99.
    updates = with_cosines([[1, 0.6, 0], [0.6, 1, 0], [0, 0, 1]])
    result = foolsgold(updates, THREE, {})
    low = log(0.4 / 0.6) + 0.5
    expected = torch.tensor([low, low, 1]).double() / (2 * low + 1)
    torch.testing.assert_close(result.weights, expected, rtol=1e-5, atol=1e-6)
    expected = torch.tensor([0.6, 0.6, 0]).double()
    torch.testing.assert_close(result.suspicion, expected, rtol=1e-5, atol=1e-6)


def test_similarity_to_the_more_suspect_is_pardoned_in_part():
    # The third is 0.5 like the first, which is 0.9 like the second: 0.5 · 0.5 / 0.9.
    updates = with_cosines([[1, 0.9, 0.5], [0.9, 1, 0.4], [0.5, 0.4, 1]])
    suspicion = foolsgold(updates, THREE, {}).suspicion
    expected = torch.tensor([0.9, 0.9, 0.25 / 0.9]).double()
    torch.testing.assert_close(suspicion, expected, rtol=1e-5, atol=1e-6)


def test_opposites_are_not_alike():
    result = foolsgold(torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1]), {})
    assert result.weights.tolist() == [0.5, 0.5]
    assert result.suspicion.tolist() == [0, 0]


def test_sybils_that_differ_in_each_round_are_caught_by_their_sums():
    first = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    result = foolsgold(first, THREE, {})
    assert result.weights.min() > 0.3
    second = first[[1, 0, 2]]
    result = foolsgold(second, THREE, result.memory)
    torch.testing.assert_close(result.weights, torch.tensor([0, 0, 1]).double())


def test_history_follows_the_client_not_the_row():
    first = foolsgold(torch.eye(3), THREE, {})
    swapped = foolsgold(torch.eye(3), torch.tensor([1, 0, 2]), first.memory)
    assert swapped.weights[:2].tolist() == [0, 0]  # both have been in both directions


def test_clients_that_all_agree_are_all_taken_for_sybils():
    result = foolsgold(torch.ones(3, 2), THREE, {})
    assert traits_of(foolsgold).selects
    assert result.weights.tolist() == [0, 0, 0]
    assert result.update.tolist() == [0, 0]


@pytest.mark.parametrize("names", [("0.weight", "2.weight", "2.bias"), ("0", "1", "2")])
def test_where_layers_are_known_the_weights_of_the_last_are_compared(names):
    # All the same but for the second layer's two weights, which are orthogonal.
    updates = torch.tensor([[5.0, 6.0, 7.0, 1.0, 0.0, 9.0], [5.0, 6.0, 7.0, 0.0, 1.0, 9.0]])
    layers = dict(zip(names, (slice(0, 3), slice(3, 5), slice(5, 6)), strict=True))
    result = foolsgold(updates, torch.tensor([0, 1]), {}, layers)
    assert result.suspicion.tolist() == [0, 0]
    assert result.memory["history.values"].tolist() == [[1, 0], [0, 1]]
    assert foolsgold(updates, torch.tensor([0, 1]), {}).suspicion.min() > 0.9


def test_the_least_suspect_counts_in_full_and_the_others_beside_it():
    # The first is pardoned (0.4 · 0.4 / 0.6): 1 - cs is 11/15, 2/5 and 2/5, scaled 1, 6/11, 6/11.
    updates = with_cosines([[1, 0.4, 0.4], [0.4, 1, 0.6], [0.4, 0.6, 1]])
    low = log(6 / 5) + 0.5
    expected = torch.tensor([1, low, low]).double() / (1 + 2 * low)
    torch.testing.assert_close(foolsgold(updates, THREE, {}).weights, expected, rtol=1e-5, atol=0)


def test_confidence_multiplies_the_logit_whose_largest_is_that_of_99_in_100():
    updates = with_cosines([[1, 0.6, 0], [0.6, 1, 0], [0, 0, 1]])
    low, high = 0.1 * (log(0.4 / 0.6) + 0.5), 0.1 * (log(99) + 0.5)
    expected = torch.tensor([low, low, high]).double() / (2 * low + high)
    weights = foolsgold(updates, THREE, {}, confidence=0.1).weights
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)


def test_the_prior_multiplies_the_weights():
    prior = torch.tensor([0.5, 0.3, 0.2]).double()
    torch.testing.assert_close(foolsgold(torch.eye(3), THREE, {}, prior=prior).weights, prior)


def test_the_sums_of_giants_stay_finite():
    giants = 3e38 * torch.eye(3)
    again = foolsgold(giants, THREE, foolsgold(giants, THREE, {}).memory)
    torch.testing.assert_close(again.weights, torch.ones(3).double() / 3)
    assert again.suspicion.tolist() == [0, 0, 0]
