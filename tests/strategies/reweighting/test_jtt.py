from functools import partial

import pytest
import torch

from strategies.reweighting import jtt

CLIENTS = torch.tensor([2, 5, 7, 8])
EQUAL = torch.full((4,), 0.25, dtype=torch.float64)
LOSSES = torch.tensor([0.1, 2.0, 0.3, 1.5], dtype=torch.float64)
CONFIDENCES = torch.tensor([0.9, 0.6, 0.2, 0.4], dtype=torch.float64)

two_rounds = partial(jtt, warm_up_rounds=2, n_flagged=1, factor=3.0)


def warmed_up(**changes):
    settings = {"warm_up_rounds": 1, "n_flagged": 1, "factor": 3.0, **changes}
    rule = partial(jtt, **settings)
    return rule, rule(CLIENTS, LOSSES, EQUAL, 1, {})


def test_warm_up_is_plain_averaging():
    lift = two_rounds(CLIENTS, LOSSES, EQUAL, 1, {})
    assert torch.equal(lift.weights, EQUAL)
    assert lift.flag_factor == 1
    assert not lift.restart


def test_the_last_warm_up_round_restarts():
    memory = two_rounds(CLIENTS, LOSSES, EQUAL, 1, {}).memory
    lift = two_rounds(CLIENTS, LOSSES, EQUAL, 2, memory)
    assert torch.equal(lift.weights, EQUAL)
    assert lift.flag_factor == 1
    assert lift.restart
    assert not warmed_up(restart=False)[1].restart


def test_the_client_of_largest_loss_is_lifted_from_then_on():
    rule = warmed_up()[0]
    first = rule(CLIENTS, LOSSES, EQUAL, 1, {}, CONFIDENCES)  # these do not matter
    second = rule(CLIENTS, LOSSES.flip(0), EQUAL, 2, first.memory)  # later losses do not matter
    expected = torch.tensor([1, 3, 1, 1], dtype=torch.float64) / 6
    torch.testing.assert_close(second.weights, expected)
    assert not second.restart
    third = rule(CLIENTS, LOSSES, EQUAL, 3, second.memory)
    torch.testing.assert_close(third.weights, expected)


def test_the_prior_multiplies_the_factor():
    rule, first = warmed_up()
    prior = torch.tensor([0.4, 0.2, 0.2, 0.2], dtype=torch.float64)
    lift = rule(CLIENTS, LOSSES, prior, 2, first.memory)
    expected = torch.tensor([0.4, 0.6, 0.2, 0.2], dtype=torch.float64) / 1.4
    torch.testing.assert_close(lift.weights, expected)


def test_flags_use_the_loss_of_the_last_warm_up_round():
    memory = two_rounds(CLIENTS, LOSSES, EQUAL, 1, {}).memory
    memory = two_rounds(CLIENTS, LOSSES.flip(0), EQUAL, 2, memory).memory  # 2.0 is client 7's
    lift = two_rounds(CLIENTS, LOSSES, EQUAL, 3, memory)
    assert lift.weights.argmax().item() == 2


def test_a_client_that_was_away_is_flagged_by_its_latest_loss():
    memory = two_rounds(CLIENTS, LOSSES, EQUAL, 1, {}).memory
    away = torch.tensor([2, 8])
    half = torch.full((2,), 0.5, dtype=torch.float64)
    memory = two_rounds(away, torch.zeros(2).double(), half, 2, memory).memory
    lift = two_rounds(CLIENTS, LOSSES, EQUAL, 3, memory)
    assert lift.weights.argmax().item() == 1


def test_of_equal_losses_the_lowest_id_is_flagged():
    rule = partial(jtt, warm_up_rounds=1, n_flagged=2, factor=3.0)
    memory = rule(CLIENTS, torch.ones(4).double(), EQUAL, 1, {}).memory
    lift = rule(CLIENTS, LOSSES, EQUAL, 2, memory)
    assert (lift.weights > 0.25).tolist() == [True, True, False, False]


def test_more_flags_than_clients_flag_everybody():
    rule, first = warmed_up(n_flagged=9)
    assert torch.equal(rule(CLIENTS, LOSSES, EQUAL, 2, first.memory).weights, EQUAL)


def test_a_threshold_flags_whoever_is_beyond_it():
    rule, first = warmed_up(n_flagged=None, threshold=0.3)
    lift = rule(CLIENTS, LOSSES, EQUAL, 2, first.memory)
    assert (lift.weights > 0.25).tolist() == [False, True, False, True]


def test_a_threshold_may_flag_nobody():
    rule, first = warmed_up(n_flagged=None, threshold=9.0)
    assert torch.equal(rule(CLIENTS, LOSSES, EQUAL, 2, first.memory).weights, EQUAL)


@pytest.mark.parametrize(
    ("how_many", "flagged"),
    [
        ({"n_flagged": 1}, [False, False, True, False]),
        ({"n_flagged": None, "threshold": 0.5}, [False, False, True, True]),
    ],
)
def test_flags_may_go_by_confidence(how_many, flagged):
    rule = partial(jtt, flag_by="confidence", warm_up_rounds=1, factor=3.0, **how_many)
    first = rule(CLIENTS, LOSSES, EQUAL, 1, {}, CONFIDENCES)
    lift = rule(CLIENTS, LOSSES, EQUAL, 2, first.memory, CONFIDENCES)
    assert (lift.weights > 0.25).tolist() == flagged


def test_copies_beside_the_original_weigh_one_more():
    rule, first = warmed_up(adds_one=True)
    lift = rule(CLIENTS, LOSSES, EQUAL, 2, first.memory)
    torch.testing.assert_close(lift.weights, torch.tensor([1, 4, 1, 1]).double() / 7)
    assert lift.flag_factor == 4


def test_a_skipped_last_warm_up_round_puts_the_flags_off():
    memory = two_rounds(CLIENTS, LOSSES, EQUAL, 1, {}).memory
    late = two_rounds(CLIENTS, LOSSES, EQUAL, 3, memory)  # round 2 never reached the server step
    assert late.restart
    lift = two_rounds(CLIENTS, LOSSES, EQUAL, 4, late.memory)
    assert lift.weights.argmax().item() == 1
    assert not lift.restart
