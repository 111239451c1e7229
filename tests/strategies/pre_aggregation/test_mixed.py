import pytest
import torch

from strategies.aggregation import Aggregate
from strategies.pre_aggregation import mixed
from strategies.pre_aggregation.mixed import mixed_rows, prior_of_rows, pulled_back


@pytest.mark.parametrize("sparse", [0, 100])
def test_new_rows_are_combinations_of_the_old_ones_however_they_are_added_up(monkeypatch, sparse):
    monkeypatch.setattr(mixed, "SPARSE", sparse)
    updates = torch.tensor([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    mixing = torch.tensor([[0.5, 2**-10, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    expected = [[0.5 + 10 / 2**10, 1 + 20 / 2**10], [100.0, 200.0]]
    assert mixed_rows(updates, mixing).tolist() == expected


def test_buckets_have_their_members_prior_together_and_any_other_row_keeps_its_own():
    prior = torch.tensor([0.5, 0.3, 0.2])
    buckets = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(prior_of_rows(buckets, prior), torch.tensor([0.8, 0.2]))
    neighbours = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.5, 0.5]])
    assert prior_of_rows(neighbours, prior).tolist() == prior.tolist()
    overlapping = neighbours[1:]  # fewer rows than clients
    torch.testing.assert_close(prior_of_rows(overlapping, prior), torch.tensor([0.8, 0.5]))


@pytest.mark.parametrize("of_directions", [False, True])
def test_of_a_row_that_was_taken_out_nothing_is_said(of_directions):
    half, pulls = torch.full((2,), 0.5).double(), torch.tensor([0.0, 3.0]).double()
    result = Aggregate(torch.ones(1), half, half, pulls=pulls, of_directions=of_directions)
    told = pulled_back(result, torch.diag(half * pulls))
    assert told.pulls is not None
    assert told.pulls.tolist() == [0, 3]
    assert told.suspicion.tolist() == [0, 0.5]
    assert told.weights.tolist() == [0, 1]
