from functools import partial

import pytest
import torch
from pretended_device import ELSEWHERE, PretendedDevice

from strategies.server_optimizers import adagrad, adam, sgd, yogi

ADAPTIVE = (partial(adagrad, lr=0.5), partial(adam, lr=0.5), partial(yogi, lr=0.5))
ALL = (partial(sgd, momentum=0.5), *ADAPTIVE)


def moves(optimize, *updates: float) -> list[float]:
    memory, found = {}, []
    for update in updates:
        move = optimize(torch.tensor([update]), memory=memory)
        memory = move.memory
        found.append(move.update.item())
    return found


def test_momentum_adds_up_updates_and_older_ones_count_for_less():
    # Sums 1, 1 + 1/2, 0 + 3/4.
    assert moves(partial(sgd, lr=2.0, momentum=0.5), 1.0, 1.0, 0.0) == [2.0, 3.0, 1.5]


def test_by_default_the_model_moves_by_the_update_to_the_bit():
    update = torch.tensor([0.1, -3e38])
    assert torch.equal(sgd(update, {}).update, update)


def test_adagrad_divides_by_all_squares_so_far():
    # Squares begin at τ² = 4: with 12 they are 16, and with 20 more 36.
    found = moves(partial(adagrad, lr=7.0, tau=2.0), 12**0.5, 20**0.5)
    assert found == pytest.approx([7 * 12**0.5 / (4 + 2), 7 * 20**0.5 / (6 + 2)])


def test_adam_divides_by_the_mean_of_the_last_squares():
    # Means 0.1 · 2 and 0.9 · 0.2 + 0.1 · 2; squares begin at τ² = 4 and stay there.
    found = moves(partial(adam, lr=1.0, beta_1=0.9, beta_2=0.5, tau=2.0), 2.0, 2.0)
    assert found == pytest.approx([0.2 / 4, 0.38 / 4])


def test_yogi_forgets_a_large_update_more_slowly_than_adam():
    # Squares begin at τ² = 16, as many as the update's: the first step does not change them.
    same = {"lr": 1.0, "beta_1": 0.0, "beta_2": 0.75, "tau": 4.0}
    assert moves(partial(yogi, **same), 4.0, 0.0, 1.0)[0] == pytest.approx(4 / (16**0.5 + 4))
    after = [
        rule(torch.tensor([1.0]), {"squares": torch.tensor([16.0]), "mean": torch.zeros(1)}, **same)
        .memory["squares"]
        .item()
        for rule in (yogi, adam)
    ]
    assert after == pytest.approx([16 - 0.25, 16 * 0.75 + 0.25])


@pytest.mark.parametrize("optimize", ALL)
def test_the_largest_float_is_no_reason_to_stand_still_for_ever(optimize):
    found = moves(optimize, 3e38, *[1e-3] * 3)
    assert all(move > 0 for move in found)


@pytest.mark.parametrize("optimize", ALL)
def test_it_computes_where_the_update_is_though_it_remembers_elsewhere(optimize):
    update = torch.tensor([1.0, -2.0])
    first = optimize(update, memory={})
    with PretendedDevice():
        move = optimize(update.to(ELSEWHERE), memory=first.memory)
        assert move.update.device == ELSEWHERE
        assert all(value.device == ELSEWHERE for value in move.memory.values())
    assert move.update.dtype == update.dtype
