import numpy as np
import pytest
import torch

from strategies.aggregation import mean_around_median


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_drops_the_f_values_furthest_from_the_median_be_it_on_one_side():
    result = mean_around_median(column(0, 1, 2, 10, 11), n_malicious=2)
    assert result.update.tolist() == [1.0]  # trimming would give 2, around the mean (4.8) 11/3
    assert result.suspicion.tolist() == [0, 0, 0, 1, 1]


def test_it_may_keep_from_the_upper_side():
    assert mean_around_median(column(0, 1, 9, 10, 11), n_malicious=2).update.tolist() == [10.0]


def test_the_median_of_an_even_number_lies_between():
    # Around 2 it is 5 that goes, around the upper middle 3 it would be 0; and mirrored.
    result = mean_around_median(column(0, 1, 3, 5), n_malicious=1)
    torch.testing.assert_close(result.update, torch.tensor([4 / 3]))
    result = mean_around_median(column(0, 2, 4, 5), n_malicious=1)
    torch.testing.assert_close(result.update, torch.tensor([11 / 3]))


def test_of_two_values_as_far_the_lower_stays():
    assert mean_around_median(column(0, 2, 4), n_malicious=1).update.tolist() == [1.0]


def test_survivors_are_weighed_by_their_prior():
    result = mean_around_median(column(0, 1, 9), 1, prior=torch.tensor([0.2, 0.6, 0.2]))
    torch.testing.assert_close(result.update, torch.tensor([0.75]))


@pytest.mark.parametrize(("n", "n_malicious"), [(9, 4), (10, 3)])
def test_agrees_with_numpy_sorting_by_distance_to_the_median(n, n_malicious):
    values = np.random.default_rng(n).standard_normal((n, 50))
    by_distance = np.abs(values - np.median(values, axis=0)).argsort(axis=0)
    kept = np.take_along_axis(values, by_distance[: n - n_malicious], axis=0)
    result = mean_around_median(torch.from_numpy(values), n_malicious).update
    torch.testing.assert_close(result, torch.from_numpy(kept.mean(axis=0)))
