from functools import partial
from math import log

import torch

from strategies.reweighting import group_dro

TWO = torch.tensor([0, 1])


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


HALF = doubles(0.5, 0.5)
CONCENTRATED = torch.tensor([[8, 0], [0, 8], [8, 0]])  # two clients of the first group


def test_a_step_multiplies_each_group_by_e_to_its_loss():
    step = partial(group_dro, counts=CONCENTRATED[:2], step_size=2.0)
    first = step(TWO, doubles(0, log(3) / 2), HALF, {})
    torch.testing.assert_close(first.weights, doubles(0.25, 0.75))
    second = step(TWO, doubles(0, log(3) / 2), HALF, first.memory)
    torch.testing.assert_close(second.weights, doubles(0.1, 0.9))
    torch.testing.assert_close(first.memory["group_dro.weights"], doubles(0.25, 0.75))


def test_groups_begin_equal_and_share_among_their_clients_by_the_prior():
    prior = doubles(0.25, 0.5, 0.25)
    lift = group_dro(torch.arange(3), torch.ones(3).double(), prior, {}, CONCENTRATED, 1.0)
    torch.testing.assert_close(lift.weights, doubles(0.25, 0.5, 0.25))
    lift = group_dro(torch.arange(3), torch.ones(3).double(), doubles(0.5, 0.3, 0.2), {},
                     CONCENTRATED, 1.0)  # fmt: skip
    torch.testing.assert_close(lift.weights, doubles(0.5 * 5 / 7, 0.5, 0.5 * 2 / 7))


def test_an_attacker_is_lifted_no_further_than_its_group():
    # The third client claims a huge loss: its group gains, and it gains no more than the first.
    lift = group_dro(torch.arange(3), doubles(0, log(3), 9), torch.full((3,), 1 / 3).double(), {},
                     CONCENTRATED, 1.0)  # fmt: skip
    assert lift.weights[0] == lift.weights[2]


def test_a_mixed_client_counts_for_the_groups_it_holds():
    # Masses: 3/4 of the first client, nothing of the second; 1/4 and all.
    counts = torch.tensor([[3, 1], [0, 8]])
    lift = group_dro(TWO, doubles(0, 0), HALF, {}, counts, 1.0)
    torch.testing.assert_close(lift.weights, doubles(0.5 + 0.1, 0.4))
    # Group losses: 0 and (1/4 · 0 + 1 · ln 3) / (5/4); q becomes (1, 3^0.8) scaled.
    lift = group_dro(TWO, doubles(0, log(3)), HALF, {}, counts, 1.0)
    q = 3**0.8 / (1 + 3**0.8)
    torch.testing.assert_close(lift.weights, doubles(1 - q + q / 5, q * 4 / 5))


def test_a_group_nobody_holds_this_round_keeps_its_weight():
    step = partial(group_dro, counts=CONCENTRATED, step_size=1.0)
    memory = step(TWO, doubles(0, log(3)), HALF, {}).memory
    alone = step(torch.tensor([0, 2]), doubles(5, 5), HALF, memory)
    torch.testing.assert_close(alone.weights, HALF)
    back = step(TWO, doubles(0, 0), HALF, alone.memory)
    torch.testing.assert_close(back.weights, doubles(0.25, 0.75))


def test_the_adjustment_favours_small_groups():
    # C / √examples: log(3) · 4 / √16 for the first group, twice that for the one of 4, of which
    # a client holds one that has no part in the round.
    counts = torch.tensor([[16, 0], [0, 3], [0, 1]])
    lift = group_dro(TWO, doubles(0, 0), HALF, {}, counts, 1.0, adjustment=4 * log(3))
    torch.testing.assert_close(lift.weights, doubles(0.25, 0.75))


def test_a_group_that_an_absurd_loss_left_without_weight_trains_when_it_comes_alone():
    step = partial(group_dro, counts=CONCENTRATED, step_size=1.0)
    memory = step(TWO, doubles(1, 1e30), HALF, {}).memory
    alone = step(torch.tensor([0, 2]), doubles(1, 1), HALF, memory)
    torch.testing.assert_close(alone.weights, HALF)
    back = step(TWO, doubles(1, 1), HALF, alone.memory)
    torch.testing.assert_close(back.weights, doubles(0, 1))
