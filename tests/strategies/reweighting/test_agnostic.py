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
    # Factors 1 and 3, with a mass of 1/2 + 3/2, are scaled to 1/2 and 3/2.
    first = agnostic(TWO, doubles(0, log(3)), doubles(0.5, 0.5), {}, step_size=1.0)
    away = agnostic(torch.tensor([4, 7]), doubles(0, 0), doubles(0.5, 0.5), first.memory, 1.0)
    torch.testing.assert_close(away.weights, doubles(1 / 3, 2 / 3))
    back = agnostic(TWO, doubles(0, 0), doubles(0.5, 0.5), away.memory, step_size=1.0)
    torch.testing.assert_close(back.weights, doubles(0.25, 0.75))


def test_where_all_losses_are_equal_it_does_not_matter_how_often_a_client_was_asked():
    memory = {}
    for _ in range(20):
        memory = agnostic(TWO, doubles(1, 1), doubles(0.5, 0.5), memory, step_size=0.1).memory
    three, prior = torch.tensor([4, 7, 9]), torch.full((3,), 1 / 3).double()
    lift = agnostic(three, doubles(1, 1, 1), prior, memory, step_size=0.1)
    torch.testing.assert_close(lift.weights, prior)


def test_the_clients_of_a_round_keep_together_the_mass_they_had():
    # Prior · factor before is 1/10 and 9/10; after it, 3/10 and 9/10 come to 6/5 in place of 1.
    prior = doubles(0.1, 0.9)
    memory = agnostic(TWO, doubles(log(3), 0), prior, {}, step_size=1.0).memory
    factors = memory["agnostic.values"].exp()
    torch.testing.assert_close(factors, doubles(3, 1) / 1.2)
    torch.testing.assert_close((prior * factors).sum(), doubles(1)[0])


def test_a_client_of_prior_zero_has_no_weight_and_spoils_no_sum():
    memory, prior = {}, doubles(0.0, 1.0)
    for _ in range(2):
        lift = agnostic(TWO, doubles(5, log(3)), prior, memory, step_size=1.0)
        memory = lift.memory
        assert lift.weights.tolist() == [0.0, 1.0]
    torch.testing.assert_close(memory["agnostic.values"], doubles(2 * (5 - log(3)), 0))


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
    assert again.memory["agnostic.values"].isfinite().all()
