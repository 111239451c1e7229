"""Truths of every way to deal, then what each is for."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_testbed.data import DataError
from fl_testbed.data.dealing import (
    Pool,
    Shares,
    Wanted,
    apportioned,
    dirichlet,
    iid,
    limited_counts,
    natural,
    pathological,
    quantity_skew,
)

N_TRAIN, N_CLASSES = 240, 4
LABELS = np.random.default_rng(0).permutation(np.arange(N_TRAIN) % N_CLASSES)
NATURAL = np.arange(N_TRAIN) // 8  # 30 natural clients with 8 examples each

DEALERS = {
    "iid": iid,
    "quantity_skew": partial(quantity_skew, alpha=0.5),
    "dirichlet": partial(dirichlet, alpha=0.5),
    "pathological": partial(pathological, shards_per_client=2),
    "natural": natural,
}
SIZES_ARE_FIXED = ("iid", "dirichlet", "pathological", "natural")  # where examples_each is given
COVERS = ("iid", "quantity_skew", "dirichlet", "pathological")  # natural clients may be left over

every_dealer = pytest.mark.parametrize("name", DEALERS)
seeds = st.integers(0, 1_000)


@st.composite
def pools(draw) -> Pool:
    """Clients and examples that fit every dealer, with or without attackers."""
    n_clients = draw(st.integers(1, 8))
    each = draw(st.sampled_from([None, 2, 8]))
    n_attackers = draw(st.integers(0, n_clients))
    wanted = Wanted(LABELS == 1, draw(st.sampled_from([0.0, 0.3, 0.5])))
    # Half of all the examples would be more than there are of a class: then attackers are few.
    wanted = wanted if n_attackers <= 2 and each is not None else None
    rows = np.random.default_rng(draw(seeds)).permutation(N_TRAIN)
    return Pool(rows, LABELS, n_clients, each, n_attackers, wanted, natural_clients=NATURAL)


def shards(shares: Shares) -> list[np.ndarray]:
    return np.split(shares.rows, shares.starts[1:-1])


def deal(name: str, pool: Pool, seed: int = 0) -> Shares:
    return DEALERS[name](pool, np.random.default_rng(seed))


@every_dealer
@given(pool=pools(), seed=seeds)
def test_no_example_is_dealt_twice_and_none_is_made_up(name, pool, seed):
    shares = deal(name, pool, seed)
    assert len(np.unique(shares.rows)) == len(shares.rows) == shares.starts[-1]
    assert np.isin(shares.rows, pool.rows).all()
    assert len(shares.starts) == pool.n_clients + 1
    assert (np.diff(shares.starts) >= 1).all()


@pytest.mark.parametrize("name", SIZES_ARE_FIXED)
@given(pool=pools(), seed=seeds)
def test_clients_get_the_number_of_examples_they_are_due(name, pool, seed):
    if pool.examples_each is not None:
        assert set(np.diff(deal(name, pool, seed).starts)) == {pool.examples_each}


@pytest.mark.parametrize("name", COVERS)
@given(pool=pools(), seed=seeds)
def test_without_a_number_everything_is_dealt(name, pool, seed):
    if pool.examples_each is None:
        assert sorted(deal(name, pool, seed).rows) == list(range(N_TRAIN))


@every_dealer
@given(pool=pools(), seed=seeds)
def test_every_attacker_gets_what_it_can_poison(name, pool, seed):
    if pool.wanted is None or not pool.n_attackers:
        return
    shares = deal(name, pool, seed)
    attackers = shards(shares)[pool.n_clients - pool.n_attackers :]
    wanted = pool.wanted.counts(np.array([len(shard) for shard in attackers]))
    held = [pool.wanted.mask[shard].sum() for shard in attackers]
    assert (np.array(held) >= wanted).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["iid", "quantity_skew", "dirichlet", "pathological", "natural"])
class TestExchange:
    def exchanged(self, name, pool: Pool, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """What clients hold without attackers' needs, and with them."""
        needy = replace(pool, n_attackers=3, wanted=Wanted(LABELS == 1, 0.25))
        before, after = (shards(deal(name, own, seed)) for own in (pool, needy))
        assert [len(shard) for shard in after] == [len(shard) for shard in before]
        held, has = ([int((LABELS[s] == 1).sum()) for s in own[-3:]] for own in (before, after))
        wanted = [round(len(s) / 4) for s in after[-3:]]
        assert all(n <= m <= h + n for n, m, h in zip(wanted, has, held, strict=True))
        # No more than these few places of a shard are dealt anew.
        kept = [np.isin(old, new).sum() for old, new in zip(before[-3:], after[-3:], strict=True)]
        assert all(k >= len(s) - n for k, n, s in zip(kept, wanted, after[-3:], strict=True))
        return before, after

    def test_attackers_take_what_nobody_holds_before_what_honest_clients_do(self, name, seed):
        # Natural clients have 8 examples each: half of everybody's are cut off and nobody's.
        pool = Pool(np.arange(N_TRAIN), LABELS, 30, 4, natural_clients=NATURAL)
        before, after = self.exchanged(name, pool, seed)
        assert all(map(np.array_equal, before[:-3], after[:-3]))

    def test_where_everything_is_dealt_honest_clients_get_as_many_in_return(self, name, seed):
        pool = Pool(np.arange(N_TRAIN), LABELS, 30, natural_clients=NATURAL)
        _, after = self.exchanged(name, pool, seed)
        assert sorted(np.concatenate(after)) == list(range(N_TRAIN))


@pytest.mark.parametrize("each", [16, None])
@pytest.mark.parametrize("dealer", [iid, partial(quantity_skew, alpha=1_000)], ids=["iid", "skew"])
def test_no_honest_client_pays_more_than_another_for_what_attackers_poison(dealer, each):
    held = np.zeros(8)
    for seed in range(60):
        rows = np.random.default_rng(seed).permutation(N_TRAIN)
        pool = Pool(rows, LABELS, 10, each, 2, Wanted(LABELS == 1, 0.5))
        dealt = shards(dealer(pool, np.random.default_rng(seed)))
        held += [(LABELS[shard] == 1).sum() for shard in dealt[:8]]
    assert held / held.mean() == pytest.approx(np.ones(8), abs=0.15)


@pytest.mark.parametrize("dealer", [iid, partial(dirichlet, alpha=1_000)], ids=["iid", "dirichlet"])
def test_what_attackers_do_not_poison_has_as_many_of_the_class_as_it_was_dealt(dealer):
    held = []
    for seed in range(60):
        rows = np.random.default_rng(seed).permutation(N_TRAIN)
        pool = Pool(rows, LABELS, 8, 20, 2, Wanted(LABELS == 1, 0.4))
        dealt = shards(dealer(pool, np.random.default_rng(seed)))
        held += [(LABELS[shard] == 1).sum() for shard in dealt[6:]]
    assert np.mean(held) == pytest.approx(8 + 12 / 4, rel=0.05)  # one of four classes


def test_legacy_dealing_sets_aside_the_first_examples_that_attackers_can_poison():
    rows = np.random.default_rng(1).permutation(N_TRAIN)
    pool = Pool(rows, LABELS, 10, 8, 2, Wanted(LABELS == 1, 0.5), legacy=True)
    dealt = shards(deal("iid", pool))
    assert set(rows[LABELS[rows] == 1][:8]) <= set(np.concatenate(dealt[8:]))
    assert np.array_equal(dealt[0], rows[LABELS[rows] != 1][:8])


def test_legacy_dealing_exchanges_only_what_attackers_lack():
    pool = Pool(np.arange(N_TRAIN), LABELS, 30, 8, natural_clients=NATURAL)
    held = [(LABELS[shard] == 1).sum() for shard in shards(deal("natural", pool))[-3:]]
    pool = replace(pool, n_attackers=3, wanted=Wanted(LABELS == 1, 0.25), legacy=True)
    has = [(LABELS[shard] == 1).sum() for shard in shards(deal("natural", pool))[-3:]]
    assert has == [max(2, n) for n in held]


def test_attackers_who_hold_more_than_they_need_give_to_those_who_lack():
    labels = np.repeat(np.arange(2), 8)  # one of two attackers is dealt all of one class
    pool = Pool(np.arange(16), labels, 2, None, 2, Wanted(labels == 1, 0.5))
    dealt = shards(pathological(pool, np.random.default_rng(0), shards_per_client=1))
    assert [labels[shard].sum() for shard in dealt] == [4, 4]


@every_dealer
@given(pool=pools(), seed=seeds)
def test_the_same_numbers_deal_the_same_shards(name, pool, seed):
    first, second = deal(name, pool, seed), deal(name, pool, seed)
    assert np.array_equal(first.rows, second.rows)
    assert np.array_equal(first.starts, second.starts)


@pytest.mark.parametrize("name", ["quantity_skew", "dirichlet", "pathological", "natural"])
def test_other_numbers_deal_others(name):
    pool = Pool(np.arange(N_TRAIN), LABELS, 6, natural_clients=NATURAL)
    first, second = shards(deal(name, pool, 1)), shards(deal(name, pool, 2))
    assert not all(map(np.array_equal, first, second))


@pytest.mark.parametrize("name", SIZES_ARE_FIXED)
def test_more_than_there_is_cannot_be_dealt(name):
    with pytest.raises(DataError, match="examples"):
        deal(name, Pool(np.arange(N_TRAIN), LABELS, 31, 8, natural_clients=NATURAL))


@pytest.mark.parametrize("name", SIZES_ARE_FIXED)
def test_more_attackers_than_there_is_to_poison_are_refused(name):
    wanted = Wanted(np.arange(N_TRAIN) < 7, 0.5)
    pool = Pool(np.arange(N_TRAIN), LABELS, 10, 8, 2, wanted, natural_clients=NATURAL)
    with pytest.raises(DataError, match=r"2 attackers need 4 examples each .* there are 7: lower"):
        deal(name, pool)


@pytest.mark.parametrize("name", SIZES_ARE_FIXED)
def test_spare_examples_go_to_attackers_alone_and_only_to_be_poisoned(name):
    rows, spare = np.arange(0, 160), np.arange(160, N_TRAIN)
    mask = np.arange(N_TRAIN) >= 160
    pool = Pool(rows, LABELS, 5, 8, 2, Wanted(mask, 0.5), spare, NATURAL)
    dealt = shards(deal(name, pool))
    assert not np.concatenate(dealt[:3])[np.concatenate(dealt[:3]) >= 160].size
    assert [int(mask[shard].sum()) for shard in dealt[3:]] == [4, 4]


class TestIid:
    def test_without_a_number_sizes_differ_by_one_at_most(self):
        shares = iid(Pool(np.arange(N_TRAIN), LABELS, 7), np.random.default_rng(0))
        assert set(np.diff(shares.starts)) == {34, 35}

    def test_attackers_may_want_every_example_of_a_class(self):
        wanted = Wanted(np.arange(N_TRAIN) < 20, 1.0)
        pool = Pool(np.random.default_rng(0).permutation(N_TRAIN), LABELS, 6, 10, 2, wanted)
        dealt = shards(iid(pool, np.random.default_rng(0)))
        assert sorted(np.concatenate(dealt[4:])) == list(range(20))


class TestQuantitySkew:
    @given(alpha=st.sampled_from([0.05, 0.5, 50.0]), minimum=st.integers(1, 20), seed=seeds)
    def test_every_client_gets_the_minimum_and_the_sum_is_kept(self, alpha, minimum, seed):
        pool = Pool(np.arange(N_TRAIN), LABELS, 6, 20)
        shares = quantity_skew(pool, np.random.default_rng(seed), alpha, minimum)
        assert np.diff(shares.starts).min() >= minimum
        assert shares.starts[-1] == 120

    def test_a_smaller_alpha_is_more_uneven(self):
        def spread(alpha: float) -> float:
            pool = Pool(np.arange(N_TRAIN), LABELS, 10)
            sizes = [
                np.diff(quantity_skew(pool, np.random.default_rng(s), alpha).starts)
                for s in range(20)
            ]
            return float(np.std(sizes))

        assert spread(0.1) > 2 * spread(1) > 4 * spread(100)

    def test_a_minimum_that_cannot_be_kept_is_refused(self):
        with pytest.raises(DataError, match="6 clients with at least 41 examples need 246"):
            quantity_skew(
                Pool(np.arange(N_TRAIN), LABELS, 6), np.random.default_rng(0), 1.0, min_examples=41
            )


def class_shares(shares: Shares) -> np.ndarray:
    counts = [np.bincount(LABELS[shard], minlength=N_CLASSES) for shard in shards(shares)]
    return np.array(counts) / np.array(counts).sum(axis=1, keepdims=True)


class TestDirichlet:
    @pytest.mark.parametrize("each", [None, 20])
    def test_alpha_goes_from_one_class_each_to_all_alike(self, each):
        def purity(alpha: float) -> float:
            pool = Pool(np.random.default_rng(0).permutation(N_TRAIN), LABELS, 6, each)
            return float(
                np.mean(
                    [
                        class_shares(dirichlet(pool, np.random.default_rng(seed), alpha)).max(
                            axis=1
                        )
                        for seed in range(10)
                    ]
                )
            )

        assert purity(1_000) < 0.4 < purity(0.5) < purity(0.05)

    def test_near_zero_a_client_that_finds_its_class_has_nothing_else(self):
        pool = Pool(np.random.default_rng(0).permutation(N_TRAIN), LABELS, 6, 10)  # 60 of a class
        shares = dirichlet(pool, np.random.default_rng(0), alpha=1e-4)
        assert (class_shares(shares).max(axis=1) == 1).all()

    def test_shares_follow_the_distribution(self):
        # With alpha = 1 in 4 classes a share has mean 1/4 and variance 3/80; examples drawn one
        # by one add p (1 - p) / 100 on average 0.0015.
        labels = np.arange(400_000) % 4
        pool = Pool(np.arange(400_000), labels, 1_000, 100)
        shares = dirichlet(pool, np.random.default_rng(0), alpha=1.0)
        counts = np.stack([np.bincount(labels[shard], minlength=4) for shard in shards(shares)])
        share = counts / 100
        assert share.mean(axis=0) == pytest.approx([0.25] * 4, abs=0.03)
        assert share.var(axis=0) == pytest.approx([3 / 80 + 0.0015] * 4, rel=0.2)

    def test_a_mix_does_not_go_by_how_many_examples_a_class_has(self):
        labels = (np.arange(40_000) % 4 == 0).astype(int)  # three of the first to one of the other
        shares = dirichlet(Pool(np.arange(40_000), labels, 300, 20), np.random.default_rng(0), 1.0)
        assert labels[shares.rows].mean() == pytest.approx(0.5, abs=0.06)

    def test_honest_clients_share_alike_in_what_attackers_take(self):
        wanted = Wanted(LABELS == 0, 0.5)
        pool = Pool(np.random.default_rng(0).permutation(N_TRAIN), LABELS, 6, None, 2, wanted)
        dealt = shards(dirichlet(pool, np.random.default_rng(0), alpha=1_000))
        # Of 10 examples that each of four has, two attackers with 10 take 20 together.
        assert all(1 <= (LABELS[shard] == 0).sum() <= 9 for shard in dealt[:4])

    def test_attackers_give_examples_of_all_classes_for_those_that_they_poison(self):
        left = np.zeros(N_CLASSES, dtype=int)
        for seed in range(10):
            rng = np.random.default_rng(seed)
            wanted = Wanted(LABELS == 3, 0.5)
            pool = Pool(rng.permutation(N_TRAIN), LABELS, 6, 20, 4, wanted)
            dealt = shards(dirichlet(pool, rng, alpha=1_000))
            left += np.bincount(LABELS[np.concatenate(dealt[2:])], minlength=N_CLASSES)
        assert left[:3] / left[:3].sum() == pytest.approx([1 / 3] * 3, abs=0.06)

    def test_what_others_left_is_not_kept_for_the_last_clients(self):
        # All rows are dealt, so late choosers get what is left. Roles go by client id: whether a
        # client's mix is like the leftovers must not depend on it.
        order = np.zeros(12)
        for seed in range(60):
            pool = Pool(np.random.default_rng(seed).permutation(N_TRAIN), LABELS, 12, 20)
            rng = np.random.default_rng(seed)
            dealt = class_shares(dirichlet(pool, rng, alpha=0.1))
            mixes = np.random.default_rng(seed).dirichlet(np.full(N_CLASSES, 0.1), size=12)
            order += np.abs(dealt - mixes).sum(axis=1)
        assert order[6:].sum() == pytest.approx(order[:6].sum(), rel=0.25)

    def test_a_minimum_that_no_draw_keeps_is_refused_with_the_best(self):
        pool = Pool(np.arange(N_TRAIN), LABELS, 20)
        with pytest.raises(DataError) as error:
            dirichlet(pool, np.random.default_rng(0), alpha=0.05, min_examples=8)
        assert "holds fewer than 8 examples, at best" in str(error.value)
        assert "clients.examples_each" in str(error.value)

    def test_the_minimum_is_kept_where_it_can_be(self):
        pool = Pool(np.arange(N_TRAIN), LABELS, 10)
        for seed in range(20):
            shares = dirichlet(pool, np.random.default_rng(seed), alpha=0.5, min_examples=5)
            assert np.diff(shares.starts).min() >= 5


class TestPathological:
    def test_a_client_has_as_many_classes_as_shards(self):
        pool = Pool(np.random.default_rng(0).permutation(N_TRAIN), LABELS, 12)
        for seed in range(10):
            shares = pathological(pool, np.random.default_rng(seed), shards_per_client=2)
            # 24 shards of 10 examples cut 4 classes of 60 without a rest.
            assert all(len(set(LABELS[shard])) <= 2 for shard in shards(shares))

    def test_one_shard_each_is_a_sorted_split(self):
        pool = Pool(np.random.default_rng(0).permutation(N_TRAIN), LABELS, 8)
        shares = pathological(pool, np.random.default_rng(0), shards_per_client=1)
        classes = [set(LABELS[shard]) for shard in shards(shares)]
        assert sorted(min(c) for c in classes) == [0, 0, 1, 1, 2, 2, 3, 3]
        assert all(len(c) == 1 for c in classes)

    def test_a_number_that_shards_do_not_divide_is_refused(self):
        pool = Pool(np.arange(N_TRAIN), LABELS, 4, 9)
        with pytest.raises(DataError, match="2 shards per client cannot make 9 examples"):
            pathological(pool, np.random.default_rng(0), shards_per_client=2)


class TestNatural:
    ids = np.repeat(np.arange(5), [3, 10, 4, 10, 13])
    rows = np.random.default_rng(0).permutation(40)

    def pool(self, n_clients: int, each: int | None = None) -> Pool:
        return Pool(self.rows, np.zeros(40, dtype=int), n_clients, each, natural_clients=self.ids)

    def clients_of(self, shares: Shares) -> list[set[int]]:
        return [set(self.ids[shard].tolist()) for shard in shards(shares)]

    def test_a_client_is_one_natural_client_with_all_it_has(self):
        shares = natural(self.pool(5), np.random.default_rng(0))
        assert sorted(self.clients_of(shares), key=min) == [{0}, {1}, {2}, {3}, {4}]
        assert sorted(np.diff(shares.starts)) == [3, 4, 10, 10, 13]

    def test_those_with_too_few_examples_are_left_out_and_larger_ones_cut(self):
        shares = natural(self.pool(3, each=10), np.random.default_rng(1))
        assert sorted(self.clients_of(shares), key=min) == [{1}, {3}, {4}]
        assert set(np.diff(shares.starts)) == {10}
        with pytest.raises(DataError, match="but 3 of 5 natural clients"):
            natural(self.pool(4, each=10), np.random.default_rng(1))
        with pytest.raises(DataError, match=r"1 or more examples: ask for fewer"):
            natural(self.pool(6), np.random.default_rng(1))

    def test_small_ones_are_merged_where_asked_for(self):
        # 3 + 4 are not 10: however they are drawn, three clients of 9 can be had, and what one of
        # them has too much is nobody's.
        for seed in range(10):
            shares = natural(self.pool(3, each=9), np.random.default_rng(seed), merge=True)
            held = self.clients_of(shares)
            assert [len(shard) for shard in shards(shares)] == [9, 9, 9]
            assert not held[0] & held[1] | held[0] & held[2] | held[1] & held[2]
        merged = natural(self.pool(1, each=40), np.random.default_rng(0), merge=True)
        assert self.clients_of(merged) == [{0, 1, 2, 3, 4}]

    def test_a_dataset_without_natural_clients_says_so(self):
        with pytest.raises(DataError, match="does not say which client"):
            natural(Pool(self.rows, np.zeros(40, dtype=int), 2), np.random.default_rng(0))


@given(
    total=st.integers(0, 1_000),
    weights=st.lists(st.integers(0, 50), min_size=1, max_size=9).filter(any),
)
def test_parts_sum_to_the_whole_and_are_off_by_less_than_one(total, weights):
    shares = np.array(weights) / sum(weights)
    parts = apportioned(total, shares)
    assert parts.sum() == total
    assert (np.abs(parts - total * shares) < 1 + 1e-6).all()


def test_the_largest_remainders_are_rounded_up():
    assert apportioned(10, np.array([0.16, 0.25, 0.59])).tolist() == [2, 2, 6]


@given(left=st.lists(st.integers(0, 20), min_size=2, max_size=5), seed=seeds, data=st.data())
def test_no_more_is_drawn_of_a_class_than_is_left(left, seed, data):
    total = data.draw(st.integers(0, sum(left)))
    mix = np.random.default_rng(seed).dirichlet(np.full(len(left), 0.1))
    counts = limited_counts(total, mix, np.array(left), np.random.default_rng(seed))
    assert counts.sum() == total
    assert (counts <= left).all()
