import numpy as np
import pytest
import torch
from pretended_device import ELSEWHERE, PretendedDevice
from scipy.spatial.distance import cdist

from strategies.aggregation import (
    TooFewClientsError,
    iterative_multi_krum,
    krum,
    multi_krum,
)
from strategies.aggregation.krum import krum_order

# Squared gaps to the two nearest others: 1+36, 1+25, 9+25, 9+16, 16+49.
LINE = torch.tensor([[0.0], [1.0], [6.0], [9.0], [13.0]])
SCORES = [37.0, 26.0, 34.0, 25.0, 65.0]


def test_krum_picks_the_point_with_the_tightest_neighbourhood():
    # Counting n - f - 1 neighbours would pick 6; unsquared distances would pick 1.
    result = krum(LINE, n_malicious=1)
    assert result.update.tolist() == [9.0]
    assert result.weights.tolist() == [0, 0, 0, 1, 0]


def test_suspicion_is_the_score():
    assert krum(LINE, n_malicious=1).suspicion.tolist() == SCORES
    assert multi_krum(LINE, n_malicious=1).suspicion.tolist() == SCORES


def test_of_equal_scores_the_lowest_row_wins_and_its_copies_share():
    updates = torch.tensor([[3.0], [0.0], [3.0], [0.0], [3.0], [0.0], [9.0]])
    result = krum(updates, n_malicious=2)
    assert result.update.tolist() == [3.0]
    assert result.weights.tolist() == pytest.approx([1 / 3, 0, 1 / 3, 0, 1 / 3, 0, 0])
    prior = torch.tensor([0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.3])
    weights = krum(updates, n_malicious=2, prior=prior).weights.tolist()
    assert weights == pytest.approx([1 / 2, 0, 1 / 4, 0, 1 / 4, 0, 0])


def test_copies_of_the_last_selected_share_what_those_selected_have():
    # Scores: 2, 0, 0, 0, 128: two places for three.
    updates = torch.tensor([[0.0], [1.0], [1.0], [1.0], [9.0]])
    result = multi_krum(updates, n_malicious=1, n_selected=2)
    assert result.update.tolist() == [1.0]
    assert result.weights.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0])


def test_copies_of_a_choice_share_though_another_scores_better():
    # Scores: 11.25, 4.25, 1.5, 2.5, 2.5: the best is alone, and one of the copies is chosen.
    updates = torch.tensor([[0.0], [1.0], [2.0], [2.5], [2.5]])
    result = multi_krum(updates, n_malicious=0, n_selected=2)
    assert result.weights.tolist() == [0, 0, 0.5, 0.25, 0.25]


def test_rows_of_equal_score_that_agree_in_some_coordinates_are_no_copies():
    updates = torch.tensor([[0.0, 1.0], [0.0, -1.0], [1.0, 0.0], [-1.0, 0.0], [9.0, 9.0]])
    result = krum(updates, n_malicious=1)
    assert result.suspicion[:4].tolist() == [4.0] * 4
    assert result.weights.tolist() == [1, 0, 0, 0, 0]


def test_rows_without_numbers_are_not_compared_for_ever():
    assert krum(torch.full((5, 2), torch.nan), n_malicious=1).weights.sum() == 1


def test_a_client_of_prior_zero_adds_nothing_even_when_chosen():
    result = krum(LINE, n_malicious=1, prior=torch.tensor([0.5, 0.5, 0.0, 0.0, 0.0]))
    assert result.update.tolist() == [0.0]
    assert result.weights.tolist() == [0.0] * 5


def test_multi_krum_averages_n_minus_f_by_default():
    result = multi_krum(LINE, n_malicious=1)  # all but 13
    assert result.update.tolist() == [4.0]
    assert result.weights.tolist() == [0.25, 0.25, 0.25, 0.25, 0.0]


def test_multi_krum_of_one_is_krum():
    assert multi_krum(LINE, n_malicious=1, n_selected=1).update.tolist() == [9.0]


def test_multi_krum_weighs_the_selected_by_their_prior():
    prior = torch.tensor([0.1, 0.2, 0.1, 0.6, 0.0])
    result = multi_krum(LINE, n_malicious=1, n_selected=2, prior=prior)  # selects 1 and 9
    torch.testing.assert_close(result.update, torch.tensor([7.0]))
    torch.testing.assert_close(result.weights, torch.tensor([0, 0.25, 0, 0.75, 0]).double())


def test_multi_krum_cannot_select_more_than_came():
    assert multi_krum(LINE, n_malicious=1, n_selected=5).weights.count_nonzero() == 5
    with pytest.raises(TooFewClientsError, match="n_selected=6 of n=5"):
        multi_krum(LINE, n_malicious=1, n_selected=6)


def test_two_colluding_giants_do_not_blur_the_honest_scores():
    honest = 1 + 1e-3 * torch.randn(7, 50, generator=torch.Generator().manual_seed(0))
    giants = torch.full((2, 50), 1e30)
    expected = krum(honest, n_malicious=1)
    attacked = krum(torch.cat([giants, honest]), n_malicious=2)
    assert attacked.weights[:2].tolist() == [0, 0]
    assert attacked.suspicion[:2].min() > attacked.suspicion[2:].max()
    # Nine clients and f = 2 mean five neighbours; seven and f = 1 mean four.
    assert attacked.suspicion[2:].gt(expected.suspicion).all()
    assert attacked.suspicion[2:].lt(2 * expected.suspicion).all()


# Three nearest: 118, 90, 70, 89, 209, 1107. Without 6, two nearest: 82, 65, 80, 160, 730.
SIX = torch.tensor([[0.0], [1.0], [6.0], [9.0], [13.0], [30.0]])


def test_iterative_multi_krum_scores_anew_after_each_choice():
    result = iterative_multi_krum(SIX, n_malicious=1)
    assert result.update.tolist() == [3.5]  # of 6 and 1; scored once it would be 6 and 9
    assert multi_krum(SIX, n_malicious=1, n_selected=2).update.tolist() == [7.5]


def test_iterative_multi_krum_suspects_in_the_order_of_choice():
    # Of 0, 9, 13 and 30 the nearest are 81, 16, 16 and 289 away; 13 is closer to all than 9.
    assert iterative_multi_krum(SIX, n_malicious=1).suspicion.tolist() == [4, 1, 0, 3, 2, 5]


@pytest.mark.parametrize("n_malicious", [0, 3, 8])
def test_scores_agree_with_sorted_distances_of_scipy(n_malicious):
    updates = 1 + 1e-3 * torch.randn(20, 300, generator=torch.Generator().manual_seed(0))
    distances = np.sort(cdist(updates.numpy(), updates.numpy(), "sqeuclidean"), axis=1)
    scores = distances[:, 1 : 20 - n_malicious - 1].sum(axis=1)  # the first is the row itself
    result = multi_krum(updates, n_malicious)
    torch.testing.assert_close(result.suspicion, torch.from_numpy(scores), rtol=1e-5, atol=0)
    chosen = np.sort(np.argsort(scores)[: 20 - n_malicious])
    assert result.weights.nonzero().squeeze(1).tolist() == chosen.tolist()


def test_the_host_waits_for_none_of_the_choices():
    distances = torch.cdist(SIX, SIX).square()
    with PretendedDevice() as device:
        there = distances.to(ELSEWHERE)
        device.reads.clear()
        order = krum_order(there, n_malicious=1, n_chosen=2)
        assert not device.reads
        assert order.tolist() == [2, 1, 4, 3, 0, 5]
