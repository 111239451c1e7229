from functools import partial

import pytest
import torch

from strategies.aggregation import (
    coordinate_median,
    error_rate_rejection,
    loss_rejection,
    mean,
    norm_clipping,
    trimmed_mean,
    union_rejection,
)

# The mean of all is 3; without each in turn it is 4, 10/3, 11/3 and 1.
UPDATES = torch.tensor([[0.0], [2.0], [1.0], [9.0]])


def distance_from_zero(update: torch.Tensor) -> tuple[float, float]:
    """Lose by the distance; err wherever it is above 2."""
    loss = update.abs().sum().item()
    return float(loss > 2), loss


def test_loss_rejection_drops_whose_presence_raises_the_loss_most():
    result = loss_rejection(UPDATES, distance_from_zero, n_malicious=1)
    assert result.update.tolist() == [1.0]
    torch.testing.assert_close(result.weights, torch.tensor([1, 1, 1, 0]).double() / 3)
    expected = torch.tensor([-1, -1 / 3, -2 / 3, 2]).double()
    torch.testing.assert_close(result.suspicion, expected)


def test_error_rate_rejection_suspects_by_errors_alone():
    result = error_rate_rejection(UPDATES, distance_from_zero, n_malicious=1)
    assert result.update.tolist() == [1.0]
    assert result.suspicion.tolist() == [0, 0, 0, 1]


def test_each_goes_by_its_own_measure():
    updates = torch.tensor([[0.0, 9.0], [9.0, 0.0], [1.0, 0.0]])

    def evaluate(update: torch.Tensor) -> tuple[float, float]:
        return update[0].item(), update[1].item()

    assert error_rate_rejection(updates, evaluate, 1).weights.tolist() == [0.5, 0, 0.5]
    assert loss_rejection(updates, evaluate, 1).weights.tolist() == [0, 0.5, 0.5]


def test_of_equal_impacts_on_the_error_those_of_less_impact_on_the_loss_stay():
    # Row 3 alone errs. Of the others, row 1 harms most: without each the loss is 4, 10/3 and 11/3.
    result = error_rate_rejection(UPDATES, distance_from_zero, n_malicious=2)
    assert result.weights.tolist() == [0.5, 0, 0.5, 0]


def test_of_impacts_equal_in_both_the_lowest_rows_stay():
    result = error_rate_rejection(UPDATES, lambda update: (0.5, 1.0), n_malicious=2)
    assert result.weights.tolist() == [0.5, 0.5, 0, 0]


def test_the_union_drops_whoever_either_would_drop():
    updates = torch.tensor([[0.0, 0.0], [1.0, 0.0], [9.0, 0.0], [0.0, 9.0], [0.0, 1.0]])

    def evaluate(update: torch.Tensor) -> tuple[float, float]:
        return update[0].item(), update[1].item()

    result = union_rejection(updates, evaluate, n_malicious=1)
    torch.testing.assert_close(result.weights, torch.tensor([1, 1, 0, 0, 1]).double() / 3)
    assert result.suspicion[2:4].tolist() == [4, 4]


def test_any_rule_can_be_guarded():
    rule = partial(trimmed_mean, n_malicious=1)
    result = loss_rejection(UPDATES, distance_from_zero, n_malicious=1, aggregate=rule)
    # Trimmed means: of all 1.5, without each in turn 2, 1, 2 and 1. Ties: 9 goes, not 2.
    assert result.suspicion.tolist() == [-0.5, 0.5, -0.5, 0.5]
    assert result.update.tolist() == [1.0]
    assert result.weights.tolist() == [0, 0, 1, 0]


def test_what_the_rule_says_of_its_update_is_said_of_those_it_heard():
    # Without 9 the median of 0, 2 and 1 is that of the third alone, which pulls by its square.
    median = loss_rejection(UPDATES, distance_from_zero, 1, aggregate=coordinate_median)
    assert median.pulls is not None
    torch.testing.assert_close(median.pulls, torch.tensor([0, 0, 1, 0]).double())
    # Clipped to 1 they are 0, 1 and 1: the second's factor is 1 / 2. Its copy shares it.
    clip = partial(norm_clipping, max_norm=1.0)
    copied = torch.cat([UPDATES[:3], UPDATES[1:2]])
    clipped = loss_rejection(copied, distance_from_zero, 1, aggregate=clip)
    assert clipped.multipliers is not None
    torch.testing.assert_close(clipped.multipliers @ copied.double(), clipped.update.double())
    assert clipped.multipliers[1] == clipped.multipliers[3] > 0


def test_a_model_that_only_one_client_makes_infinite_is_that_clients_fault():
    def evaluate(update: torch.Tensor) -> tuple[float, float]:
        return (1.0, torch.inf) if update.abs().max() > 2.5 else (0.0, 1.0)

    assert loss_rejection(UPDATES, evaluate, n_malicious=1).weights[3] == 0


@pytest.mark.parametrize("rule", [error_rate_rejection, loss_rejection, union_rejection])
def test_so_is_a_model_too_large_to_have_a_loss_wherever_the_client_stands(rule):
    def evaluate(update: torch.Tensor) -> tuple[float, float]:
        return (0.5, torch.nan) if update.abs().max() > 2.5 else (0.5, 1.0)

    assert rule(UPDATES.flip(0), evaluate, n_malicious=1).weights[0] == 0


@pytest.mark.parametrize("rule", [mean, partial(norm_clipping, max_norm=99.0)])
def test_the_prior_weighs_those_left(rule):
    prior = torch.tensor([0.1, 0.3, 0.2, 0.4])
    result = loss_rejection(UPDATES, distance_from_zero, 1, prior=prior, aggregate=rule)
    torch.testing.assert_close(result.weights, torch.tensor([1 / 6, 1 / 2, 1 / 3, 0]).double())


@pytest.mark.parametrize("n", [5, 8])
def test_means_without_each_client_are_those_of_the_others(n):
    updates = torch.randn(n, 6, generator=torch.Generator().manual_seed(n))
    updates[2] = 1e30  # what is left of it after a subtraction would drown all others
    prior = torch.softmax(torch.arange(n).double() / 4, dim=0)
    prior[1] = 0
    seen, expected = [], []

    def evaluate(update: torch.Tensor) -> tuple[float, float]:
        seen.append(update)
        return 0.0, 0.0

    loss_rejection(updates, evaluate, n_malicious=1, prior=prior)
    for i in range(n):
        others = torch.arange(n) != i
        expected.append(mean(updates[others], prior[others] / prior[others].sum()).update)
    torch.testing.assert_close(torch.stack(seen[1:]), torch.stack(expected))


def test_where_one_client_alone_counts_the_others_count_equally_without_it():
    losses = []

    def evaluate(update: torch.Tensor) -> tuple[float, float]:
        losses.append(update.item())
        return 0.0, 0.0

    loss_rejection(UPDATES, evaluate, 1, prior=torch.tensor([0.0, 0.0, 0.0, 1.0]))
    assert losses == [9.0, 9.0, 9.0, 9.0, 1.0]


@pytest.mark.parametrize("rule", [error_rate_rejection, loss_rejection, union_rejection])
def test_where_the_only_client_that_counts_is_dropped_nothing_moves(rule):
    prior = torch.tensor([0.0, 0.0, 0.0, 1.0])
    result = rule(UPDATES, distance_from_zero, n_malicious=1, prior=prior)
    assert result.update.tolist() == [0.0]
    assert result.weights.tolist() == [0.0] * 4


@pytest.mark.parametrize("rule", [error_rate_rejection, loss_rejection, union_rejection])
def test_a_client_alone_has_the_impact_of_its_update_on_the_received_model(rule):
    result = rule(UPDATES[3:], distance_from_zero, n_malicious=0)
    assert result.update.tolist() == [9.0]
    assert result.weights.tolist() == [1.0]
    assert result.suspicion.tolist() == {loss_rejection: [9], error_rate_rejection: [1]}.get(
        rule, [0]
    )


def test_a_loss_that_is_always_infinite_says_nothing():
    result = loss_rejection(UPDATES, lambda update: (1.0, torch.inf), n_malicious=1)
    assert result.suspicion.tolist() == [0, 0, 0, 0]


def test_whoever_alone_keeps_the_loss_finite_is_the_last_to_go():
    def evaluate(update: torch.Tensor) -> tuple[float, float]:  # without 9 the mean is 1
        return 0.0, torch.inf if update.item() < 2 else update.item()

    assert loss_rejection(UPDATES, evaluate, n_malicious=3).weights.tolist() == [0, 0, 0, 1]
