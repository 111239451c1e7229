import pytest
import torch

from strategies.aggregation import bulyan

# Krum never selects 50 or -60. Around the median 2 the nearest are 1, and 0 or 4 equally far.
UPDATES = torch.tensor([[0.0], [1.0], [2.0], [4.0], [8.0], [50.0], [-60.0]])


def test_averages_the_selected_nearest_to_their_median():
    # Keeping n - 2f would give 3, trimming 7/3.
    result = bulyan(UPDATES, n_malicious=1)
    assert result.update.tolist() == [1.0]
    torch.testing.assert_close(
        result.weights, torch.tensor([1, 1, 1, 0, 0, 0, 0]).double() / 3, rtol=1e-6, atol=1e-7
    )


def test_suspicion_is_the_share_of_coordinates_dropped_and_one_if_not_selected():
    updates = torch.cat([UPDATES, -UPDATES], dim=1)  # mirrored, the tie goes to 4
    suspicion = bulyan(updates, n_malicious=1).suspicion
    assert suspicion.tolist() == [0.5, 0, 0, 0.5, 1, 1, 1]


def test_whom_krum_rejects_has_no_say_where_it_looks_ordinary():
    updates = torch.cat([UPDATES, torch.zeros(7, 1)], dim=1)
    updates[5] = torch.tensor([2.0, 1000.0])  # with it the first coordinate would be 5/3
    assert bulyan(updates, n_malicious=1).update.tolist() == [1.0, 0.0]


def test_krum_scores_anew_after_each_choice():
    # It chooses 11, 6, 14, 2 and 9. Scored once, 15 would be in place of 2, and the mean 34 / 3.
    updates = torch.tensor([[1.0], [2.0], [6.0], [9.0], [11.0], [14.0], [15.0]])
    torch.testing.assert_close(bulyan(updates, n_malicious=1).update, torch.tensor([26 / 3]))


def test_equal_values_of_the_selected_share_the_three_ranks_that_are_kept():
    updates = torch.cat([UPDATES, torch.zeros(7, 1)], dim=1)
    suspicion = bulyan(updates, n_malicious=1).suspicion
    assert suspicion.tolist() == pytest.approx([0.2, 0.2, 0.2, 0.7, 0.7, 1, 1])


def test_one_wild_coordinate_of_an_otherwise_close_update_is_cut():
    updates = 0.01 * torch.randn(11, 500, generator=torch.Generator().manual_seed(0))
    updates[0, 7] = 0.3  # too little to be far from anybody
    assert bulyan(updates, n_malicious=2).update[7].abs() < 0.02
