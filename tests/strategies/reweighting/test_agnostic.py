from math import log

import torch

from strategies.reweighting import agnostic, exponentiated_gradient

TWO = torch.tensor([4, 9])


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_step_of_one_multiplies_each_weight_by_e_to_the_loss():
    weights = exponentiated_gradient(doubles(0.5, 0.5), doubles(0, log(3)), step_size=1.0)
    torch.testing.assert_close(weights, doubles(0.25, 0.75))


def test_the_first_round_already_counts_its_losses():
    lift = agnostic(TWO, doubles(0, log(3)), doubles(0.5, 0.5), {}, step_size=1.0)
    torch.testing.assert_close(lift.weights, doubles(0.25, 0.75))
    assert lift.step == 1.0
    assert not lift.restart


def test_losses_accumulate_over_rounds():
    first = agnostic(TWO, doubles(0, log(3)), doubles(0.5, 0.5), {}, step_size=1.0)
    second = agnostic(TWO, doubles(0, log(3)), doubles(0.5, 0.5), first.memory, step_size=1.0)
    torch.testing.assert_close(second.weights, doubles(0.1, 0.9))


def test_a_client_that_was_away_keeps_its_factor():
    first = agnostic(TWO, doubles(0, log(3)), doubles(0.5, 0.5), {}, step_size=1.0)
    away = agnostic(torch.tensor([4, 7]), doubles(0, 0), doubles(0.5, 0.5), first.memory, 1.0)
    torch.testing.assert_close(away.weights, doubles(0.5, 0.5))
    back = agnostic(TWO, doubles(0, 0), doubles(0.5, 0.5), away.memory, step_size=1.0)
    torch.testing.assert_close(back.weights, doubles(0.25, 0.75))


def test_the_prior_multiplies_the_factors():
    lift = agnostic(TWO, doubles(0, log(3)), doubles(0.9, 0.1), {}, step_size=1.0)
    torch.testing.assert_close(lift.weights, doubles(0.75, 0.25))


def test_thousands_of_rounds_do_not_overflow():
    memory = {}
    for _ in range(3000):
        lift = agnostic(TWO, doubles(2.0, 2.5), doubles(0.5, 0.5), memory, step_size=1.0)
        memory = lift.memory
    torch.testing.assert_close(lift.weights, doubles(0.0, 1.0))


def test_an_absurd_claim_takes_all_the_weight_and_breaks_nothing():
    # The amplification channel of every loss-based method, at its widest.
    claim = doubles(1.0, 3e38)
    lift = agnostic(TWO, claim, doubles(0.5, 0.5), {}, step_size=0.1)
    again = agnostic(TWO, claim, doubles(0.5, 0.5), lift.memory, step_size=0.1)
    assert again.weights.tolist() == [0.0, 1.0]
