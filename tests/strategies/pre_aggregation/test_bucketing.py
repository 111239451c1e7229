import numpy as np
import pytest
import torch

from strategies.pre_aggregation import bucketing, n_buckets


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_every_client_is_in_one_bucket_of_the_given_size():
    _, mixing = bucketing(torch.ones(7, 2), rng(), size=3)
    assert mixing.shape == (3, 7)
    assert ((mixing > 0).sum(dim=0) == 1).all()
    assert (mixing > 0).sum(dim=1).tolist() == [3, 3, 1]


def test_a_row_is_the_mean_of_its_bucket():
    updates = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    rows, mixing = bucketing(updates, rng(), size=2)
    for row, members in zip(rows, mixing > 0, strict=True):
        torch.testing.assert_close(row, updates[members].mean(dim=0))


@pytest.mark.parametrize("prior", [[0.25, 0.75], [0.0, 1.0]])
def test_clients_count_in_their_bucket_by_their_prior(prior):
    updates = torch.tensor([[0.0], [8.0]])
    rows, mixing = bucketing(updates, rng(), size=2, prior=torch.tensor(prior))
    assert rows.tolist() == [[8 * prior[1]]]
    assert mixing.tolist() == [prior]


def test_a_bucket_of_prior_zero_is_a_plain_mean():
    rows, _ = bucketing(torch.tensor([[0.0], [8.0]]), rng(), size=2, prior=torch.zeros(2))
    assert rows.tolist() == [[4.0]]


def test_buckets_are_drawn_anew_by_each_generator():
    updates = torch.arange(12.0)[:, None]
    first, again, other = (bucketing(updates, rng(seed), 2).mixing for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_buckets_of_one_are_the_clients_in_another_order():
    updates = torch.arange(5.0)[:, None]
    rows, _ = bucketing(updates, rng(), size=1)
    assert sorted(rows.squeeze(1).tolist()) == [0, 1, 2, 3, 4]


def test_the_last_bucket_counts_too():
    assert [n_buckets(n, 3) for n in (6, 7, 9)] == [2, 3, 3]
