from itertools import combinations

import pytest
import torch

from strategies.aggregation import minimum_diameter


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_averages_the_subset_of_least_diameter():
    result = minimum_diameter(column(0, 3, 4, 5.5, 9), n_malicious=2)  # {3, 4, 5.5}
    torch.testing.assert_close(result.update, torch.tensor([12.5 / 3]))
    torch.testing.assert_close(result.weights, torch.tensor([0, 1, 1, 1, 0]).double() / 3)


def test_suspicion_is_the_distance_to_the_farthest_member():
    suspicion = minimum_diameter(column(0, 3, 4, 5.5, 9), n_malicious=2).suspicion
    assert suspicion.tolist() == [5.5, 2.5, 1.5, 2.5, 6]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n_malicious", [1, 2, 3])
def test_no_subset_of_that_size_is_tighter(n_malicious, seed):
    updates = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed)).double()
    gaps = torch.cdist(updates, updates)
    kept = minimum_diameter(updates, n_malicious).weights > 0
    assert kept.sum() == 8 - n_malicious
    tightest = min(
        gaps[list(rows)][:, list(rows)].max().item()
        for rows in combinations(range(8), 8 - n_malicious)
    )
    assert gaps[kept][:, kept].max().item() == pytest.approx(tightest)


def test_a_row_far_from_most_may_be_among_the_closest():
    # (6, 0) is further than √13 from two, as are two others; its subset's diameter is √13.
    updates = torch.tensor([[6.0, 0], [2, 2], [3, 0], [5, 4], [6, 2]])
    weights = minimum_diameter(updates, n_malicious=2).weights
    torch.testing.assert_close(weights, torch.tensor([1, 0, 1, 0, 1]).double() / 3)


def test_where_fewer_must_go_the_highest_rows_go_as_well():
    alike = torch.cat([torch.eye(4), torch.full((1, 4), 50.0)])  # four as far from each other
    result = minimum_diameter(alike, n_malicious=2)
    torch.testing.assert_close(result.weights, torch.tensor([1, 1, 1, 0, 0]).double() / 3)


def test_forty_of_a_hundred_are_found_without_trying_all_subsets():
    updates = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    updates[:40] += 30
    assert minimum_diameter(updates, n_malicious=40).weights[:40].sum() == 0


def test_copies_of_a_row_that_stays_share_its_weight():
    result = minimum_diameter(column(1, 1, 1, 1, 9), n_malicious=2)  # the highest row goes as well
    torch.testing.assert_close(result.weights, torch.tensor([1, 1, 1, 1, 0]).double() / 4)
