import numpy as np
import pytest

from fl_testbed.data import DataError, Examples
from fl_testbed.data.sources.splitting import split_clients


def clients_for_testing(seed: int) -> set[int]:
    clients = np.arange(120) // 3
    every = Examples(np.zeros((120, 1)), np.zeros(120, dtype=int), clients=clients)
    train, test = split_clients(every, clients // 20, 0.2, np.random.default_rng(seed))
    assert train.clients is not None
    assert test.clients is not None
    assert not set(train.clients) & set(test.clients)
    return set(test.clients.tolist())


def test_the_seed_draws_a_share_of_each_population_s_clients():
    drawn = [clients_for_testing(seed) for seed in range(10)]
    for tested in drawn:
        assert sorted(client // 20 for client in tested) == [0] * 4 + [1] * 4
    assert len(set.union(*drawn)) > 30  # of 40: one is spared ten times with probability 0.1


def test_a_population_of_one_client_cannot_be_split():
    clients = np.array([0, 0, 1, 1, 2])
    every = Examples(np.zeros((5, 1)), np.zeros(5, dtype=int), clients=clients)
    with pytest.raises(DataError, match="one natural client"):
        split_clients(every, clients // 2, 0.2, np.random.default_rng(0))
