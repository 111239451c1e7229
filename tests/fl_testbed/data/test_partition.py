import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_testbed.data import DataError
from fl_testbed.data.partition import DisjointShards, equal_shards, overlapping_shards

N_TRAIN = 120


def deal(n_clients: int, each: int, n_server: int, seed: int, wanted=None) -> DisjointShards:
    rng = np.random.default_rng(seed)
    return equal_shards(n_clients, each, n_server, N_TRAIN, rng, wanted)


@st.composite
def federations(draw) -> dict:
    """Numbers of clients and examples that fit, with or without attackers who want a class."""
    n_clients, each = draw(st.integers(1, 12)), draw(st.integers(1, 10))
    n_server = draw(st.integers(0, N_TRAIN - n_clients * each))
    seed = draw(st.integers(0, 1_000))
    return {"n_clients": n_clients, "each": each, "n_server": n_server, "seed": seed}


every_third = np.arange(N_TRAIN) % 3 == 0


def attackers(numbers: dict) -> tuple[int, int, np.ndarray]:
    """As many as there may be clients, who all want half of their shard from a third of the data.

    The server may keep some of it, so they ask for no more than is sure to be left.
    """
    n_wanted = (numbers["each"] + 1) // 2
    left = max(0, int(every_third.sum()) - numbers["n_server"])
    return min(numbers["n_clients"], left // n_wanted), n_wanted, every_third


@given(numbers=federations(), with_attackers=st.booleans())
def test_shards_are_equal_disjoint_and_apart_from_the_server_s(numbers, with_attackers):
    partition = deal(**numbers, wanted=attackers(numbers) if with_attackers else None)
    shards = [partition.client_rows(client) for client in range(numbers["n_clients"])]
    assert {len(shard) for shard in shards} == {numbers["each"]}
    assert {partition.size(client) for client in range(numbers["n_clients"])} == {numbers["each"]}
    assert len(partition.server) == numbers["n_server"]
    dealt = np.concatenate([*shards, partition.server])
    assert len(np.unique(dealt)) == len(dealt)
    assert ((dealt >= 0) & (dealt < N_TRAIN)).all()


@given(
    n_server=st.sampled_from([0, 20, 60]), seed=st.integers(0, 1_000), attackers=st.integers(0, 4)
)
def test_nothing_is_left_over_where_everything_is_asked_for(n_server, seed, attackers):
    mask = np.ones(N_TRAIN, dtype=bool)
    partition = deal(10, (N_TRAIN - n_server) // 10, n_server, seed, (attackers, 2, mask))
    dealt = np.concatenate([partition.rows, partition.server])
    assert sorted(dealt) == list(range(N_TRAIN))


@given(numbers=federations())
def test_every_attacker_gets_what_it_wants(numbers):
    n_attackers, n_wanted, mask = wanted = attackers(numbers)
    partition = deal(**numbers, wanted=wanted)
    for client in range(numbers["n_clients"] - n_attackers, numbers["n_clients"]):
        assert mask[partition.client_rows(client)].sum() >= n_wanted


@given(numbers=federations(), with_attackers=st.booleans())
def test_the_same_seed_deals_the_same_shards(numbers, with_attackers):
    wanted = attackers(numbers) if with_attackers else None
    first, second = deal(**numbers, wanted=wanted), deal(**numbers, wanted=wanted)
    assert np.array_equal(first.rows, second.rows)
    assert np.array_equal(first.server, second.server)


def test_another_seed_deals_others():
    assert not np.array_equal(deal(5, 10, 20, seed=1).rows, deal(5, 10, 20, seed=2).rows)


def test_attackers_may_want_every_example_of_the_class():
    mask = np.arange(N_TRAIN) < 20
    partition = deal(6, 10, 0, 0, (2, 10, mask))
    assert sorted(np.concatenate([partition.client_rows(4), partition.client_rows(5)])) == list(
        range(20)
    )
    assert not mask[partition.client_rows(0)].any()


def test_too_few_examples_are_refused_with_the_sum():
    with pytest.raises(DataError) as error:
        deal(11, 10, 11, seed=0)
    assert str(error.value) == (
        "11 clients with 10 examples each and 11 for the server need 121 training examples, there "
        "are 120: lower clients.examples_each or the number of clients"
    )
    assert len(deal(11, 10, 10, seed=0).rows) == 110


def test_too_few_source_examples_are_refused_with_the_count():
    mask = np.arange(N_TRAIN) < 19
    with pytest.raises(DataError) as error:
        deal(5, 10, 0, 0, (2, 10, mask))
    assert str(error.value) == (
        "2 attackers need 10 examples each that they can poison, there are 19: lower "
        "poison.fraction, clients.examples_each or clients.poisoned"
    )


def test_the_server_s_own_source_examples_are_not_the_attackers():
    # The server keeps all but 10 examples; what is left of the class can't be enough for two.
    with pytest.raises(DataError, match="2 attackers need 5 examples each that they can poison"):
        deal(2, 5, 110, 0, (2, 5, every_third))


class TestOverlapping:
    @given(
        n_clients=st.integers(1, 30),
        each=st.integers(1, 40),
        n_server=st.integers(0, 80),
        n_attackers=st.integers(0, 5),
        seed=st.integers(0, 1_000),
    )
    def test_no_client_holds_an_example_twice_or_one_of_the_server_s(
        self, n_clients, each, n_server, n_attackers, seed
    ):
        # 100 of 120 examples can be poisoned, so that at least 20 of any 40 can.
        mask = np.arange(N_TRAIN) < 100
        n_attackers, n_wanted = min(n_attackers, n_clients), each // 2
        wanted = (n_attackers, n_wanted, mask)
        partition = overlapping_shards(n_clients, each, n_server, N_TRAIN, seed, wanted)
        again = overlapping_shards(n_clients, each, n_server, N_TRAIN, seed, wanted)
        for client in reversed(range(n_clients)):
            rows = partition.client_rows(client)
            assert len(set(rows)) == len(rows) == each == partition.size(client)
            assert not set(rows) & set(partition.server)
            assert np.array_equal(rows, again.client_rows(client))
            if client >= n_clients - n_attackers:
                assert mask[rows].sum() >= n_wanted

    def test_an_attacker_holds_all_of_a_rare_class_if_it_wants_to(self):
        mask = np.arange(N_TRAIN) < 5
        partition = overlapping_shards(2, 10, 0, N_TRAIN, 0, (1, 5, mask))
        assert mask[partition.client_rows(1)].sum() == 5

    def test_more_clients_than_the_data_could_feed_apart_draw_by_themselves(self):
        partition = overlapping_shards(1_000, 10, 0, N_TRAIN, seed=0)
        shards = {tuple(partition.client_rows(client)) for client in range(1_000)}
        assert len(shards) == 1_000
        assert set().union(*shards) == set(range(N_TRAIN))

    def test_a_shard_larger_than_the_pool_is_refused(self):
        assert overlapping_shards(1, 100, 20, N_TRAIN, seed=0).size(0) == 100
        with pytest.raises(DataError, match="a client cannot hold 101 of 100 examples"):
            overlapping_shards(1, 101, 20, N_TRAIN, seed=0)
