from functools import partial

import pytest
import torch
from pretended_device import ELSEWHERE, PretendedDevice

from strategies.aggregation import blocks
from strategies.pre_aggregation import adaptive_clipping, clipping

UPDATES = torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0], [0.0, 2.0], [0.0, 50.0]])


def test_longer_rows_are_scaled_to_the_bound():
    rows, mixing = clipping(UPDATES, max_norm=5.0)
    torch.testing.assert_close(rows[2], torch.tensor([3.0, 4.0]))
    assert torch.equal(rows[:2], UPDATES[:2])
    torch.testing.assert_close(mixing.diagonal(), torch.tensor([1, 1, 0.5, 1, 0.1]).double())
    assert mixing.count_nonzero() == 5


def test_adaptive_clipping_shortens_the_longest_to_the_longest_of_the_others():
    # k = ⌊2 · 1/5 · 4⌋ = 1 row is clipped, to norm 10; with f = 2, ⌊2 · 2/5 · 3⌋ = 2, to 5.
    rows, _ = adaptive_clipping(UPDATES, n_malicious=1)
    torch.testing.assert_close(rows.norm(dim=1), torch.tensor([5.0, 1.0, 10.0, 2.0, 10.0]))
    rows, _ = adaptive_clipping(UPDATES, n_malicious=2)
    torch.testing.assert_close(rows.norm(dim=1), torch.tensor([5.0, 1.0, 5.0, 2.0, 5.0]))


def test_adaptive_clipping_without_attackers_changes_nothing():
    assert torch.equal(adaptive_clipping(UPDATES, n_malicious=0).updates, UPDATES)


def test_the_rows_that_came_in_stay_as_they_were():
    before = UPDATES.clone()
    clipping(UPDATES, max_norm=1.0)
    assert torch.equal(UPDATES, before)


@pytest.mark.parametrize("block", [2, 4, 2**20])
@pytest.mark.parametrize(
    "clip", [partial(clipping, max_norm=5.0), partial(adaptive_clipping, n_malicious=1)]
)
def test_in_place_the_rows_are_the_same_and_lie_where_they_were(monkeypatch, clip, block):
    rows, mixing = clip(UPDATES)
    monkeypatch.setattr(blocks, "ROW_BLOCK", block)
    given = UPDATES.clone()
    clipped = clip(given, out=given)
    assert clipped.updates is given
    assert torch.equal(given, rows)
    assert torch.equal(clipped.mixing, mixing)


def test_the_host_does_not_wait_for_the_adaptive_bound():
    waited = []
    for clip in (partial(clipping, max_norm=5.0), partial(adaptive_clipping, n_malicious=1)):
        with PretendedDevice() as device:
            clip(UPDATES.to(ELSEWHERE))
        waited.append(len(device.reads))
    assert waited[1] == waited[0]


def test_adaptive_clipping_may_shorten_more_rows_than_attackers():
    rows, _ = adaptive_clipping(torch.arange(1.0, 12.0)[:, None], n_malicious=2)
    assert rows.flatten().tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8]  # ⌊2 · 2/11 · 9⌋ = 3
