from functools import partial

import numpy as np
import torch

from strategies.aggregation import sign_guard
from strategies.aggregation.sign_guard import _shares_of_signs

guard = partial(sign_guard, rng=np.random.default_rng(0), sign_fraction=1.0)

# Norms 2, 2, 2, 4, 2, 2 · 50, 2 · 0.01; the fifth has its signs turned round.
UP = torch.tensor([1.0, 1.0, 1.0, -1.0])
UPDATES = torch.stack([UP, UP.flip(0), UP.roll(1), 2 * UP, -UP, 50 * UP, 0.01 * UP])


def test_filters_by_norm_and_by_signs_and_clips_the_rest():
    result = guard(UPDATES)
    expected = (UP + UP.flip(0) + UP.roll(1) + UP) / 4
    torch.testing.assert_close(result.update, expected)
    expected = torch.tensor([1, 1, 1, 0.5, 0, 0, 0]).double() / 3.5
    torch.testing.assert_close(result.weights, expected)


def test_suspicion_counts_the_filters_that_reject():
    assert guard(UPDATES).suspicion.tolist() == [0, 0, 0, 0, 1, 1, 1]
    both = torch.cat([UPDATES, -60 * UP[None]])
    assert guard(both).suspicion[-1].item() == 2


def test_norms_on_the_border_are_usual():
    updates = torch.stack([UP, UP.flip(0), UP.roll(1), 0.5 * UP, 2 * UP])  # 2, 2, 2, 1 and 4
    assert guard(updates, lower=0.5, upper=2.0).suspicion.tolist() == [0] * 5


def test_only_a_share_of_the_coordinates_is_looked_at():
    updates = torch.stack([UP] * 4 + [torch.tensor([1.0, 1.0, -1.0, -1.0])])
    heard = [
        sign_guard(updates, np.random.default_rng(seed), sign_fraction=0.25).weights[4].item() > 0
        for seed in range(10)
    ]
    assert any(heard)  # where the one coordinate drawn is another
    assert not all(heard)


def test_statistics_are_the_shares_of_positive_zero_and_negative_values():
    updates = torch.tensor([[3.0, 0, -2, 1], [0, 0, 0, -1]])
    shares = _shares_of_signs(updates, torch.arange(4))
    assert shares.tolist() == [[0.5, 0.25, 0.25], [0, 0.75, 0.25]]


def test_zeros_are_a_sign_of_their_own():
    updates = torch.stack([UP] * 4 + [torch.tensor([1.2, 1.2, 1.2, 0.0])])
    assert guard(updates).weights[4].item() == 0


def test_where_no_two_statistics_agree_the_densest_are_kept():
    updates = torch.randn(9, 200, generator=torch.Generator().manual_seed(0))
    updates[0] = updates[0].abs()
    weights = guard(updates).weights
    assert weights[0].item() == 0
    assert (weights > 0).sum() > 4


def test_a_client_within_reach_of_no_centre_joins_no_cluster():
    # Of 12 values so many are positive. The mean distance to the nearest half, three, joins 7 to
    # 11; 5 is nearer to them than to 0 and 0, and yet too far away.
    n_up = torch.tensor([0, 0, 5, 7, 9, 9, 11])
    updates = torch.where(torch.arange(12) < n_up[:, None], 1.0, -1.0)
    assert guard(updates).suspicion.tolist() == [1, 1, 1, 0, 0, 0, 0]


def test_where_everybody_has_a_twin_the_most_frequent_statistics_are_kept():
    assert guard(torch.stack([UP, UP, -UP, -UP, -UP])).suspicion.tolist() == [1, 1, 0, 0, 0]


def test_nobody_is_made_longer():
    result = guard(torch.stack([UP, 0.5 * UP, 2 * UP]))  # norms 2, 1 and 4
    torch.testing.assert_close(result.weights, torch.tensor([1, 1, 0.5]).double() / 2.5)
    torch.testing.assert_close(result.update, 2.5 / 3 * UP)


def test_one_coordinate_at_least_is_looked_at_and_a_client_alone_is_heard():
    result = sign_guard(UP[None], np.random.default_rng(0), sign_fraction=0.01)
    assert result.update.tolist() == UP.tolist()


def test_of_two_clients_nobody_can_tell_which_is_unusual():
    rng = np.random.default_rng(0)
    for seed in range(20):
        updates = torch.randn(2, 500, generator=torch.Generator().manual_seed(seed))
        assert sign_guard(updates, rng).suspicion.tolist() == [0, 0]


def test_of_three_clients_the_two_that_are_close_are_kept_whatever_their_rows():
    one, other, turned = (
        UP.repeat(5),
        UP.repeat(5).index_fill(0, torch.tensor([0]), -1.0),
        -UP.repeat(5),
    )
    assert guard(torch.stack([one, other, turned])).suspicion.tolist() == [0, 0, 1]
    assert guard(torch.stack([turned, one, other])).suspicion.tolist() == [1, 0, 0]
