"""Who holds what: by role, by group, and apart from the server."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.shard import Role
from fl_testbed.data import DataError, Population
from fl_testbed.data.dealing import Wanted, dirichlet, iid, natural
from fl_testbed.data.groups import OwnGroups
from fl_testbed.data.partition import (
    MINORITY,
    DisjointShards,
    Division,
    OverlappingShards,
    disjoint_shards,
    overlapping_shards,
)

N_TRAIN = 600
LABELS = np.arange(N_TRAIN) % 5
# Four groups of 360, 120, 80 and 40 examples, in no order; the last two are minorities.
CODES = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [360, 120, 80, 40]))
GROUPS = OwnGroups(("a", "b", "c", "d"), CODES, CODES[:0], frozenset({2, 3}))
WRITERS = np.arange(N_TRAIN) // 20

seeds = st.integers(0, 1_000)


def share_out(division: Division, seed: int = 0, deal=iid, writers=None) -> DisjointShards:
    return disjoint_shards(division, deal, LABELS, writers, np.random.default_rng(seed))


def groups_held(shards: DisjointShards | OverlappingShards, clients: range) -> np.ndarray:
    """Groups in columns, clients in rows."""
    return np.array([np.bincount(CODES[shards.client_rows(c)], minlength=4) for c in clients])


@st.composite
def divisions(draw) -> Division:
    """Federations that fit: with or without groups, attackers, held-out data and a fixed size."""
    each = draw(st.sampled_from([None, 1, 10]))
    return Division(
        population=Population(
            draw(st.integers(1, 8)), draw(st.integers(1, 3)), draw(st.integers(0, 3))
        ),
        examples_each=each,
        groups=draw(st.sampled_from([None, GROUPS])),
        concentration=draw(st.sampled_from([0.0, 0.3, 1.0])),
        attackers_hold=draw(st.sampled_from([Role.HONEST_MAJORITY, Role.HONEST_MINORITY])),
        wanted=Wanted(LABELS == 3, 0.5) if each else None,
        n_server=draw(st.integers(0, 40)),
        n_server_minority=0,
        server_bias=draw(st.sampled_from([None, (3, 0.5)])),
        n_validation=draw(st.integers(0, 40)),
    )


def test_where_data_is_short_it_is_told_whose():
    division = Division(Population(2, 3, 0), 10, GROUPS, by_natural_client=True)
    with pytest.raises(DataError, match=r"data of the minority: .* 0 of 0 natural clients"):
        share_out(division, deal=natural, writers=WRITERS)  # each has more of the majority's
    theirs = replace(division, population=Population(2, 0, 1), attackers_hold=MINORITY)
    with pytest.raises(DataError, match="clients; a natural client is of the minority if at least"):
        share_out(theirs, deal=natural, writers=WRITERS)


@given(division=divisions(), seed=seeds)
def test_clients_server_and_validation_share_no_example(division, seed):
    shards = share_out(division, seed)
    n_clients = len(division.population)
    held = np.concatenate([shards.client_rows(client) for client in range(n_clients)])
    assert len(shards.server) == division.n_server
    assert len(shards.validation) == division.n_validation
    every = np.concatenate([held, shards.server, shards.validation])
    assert len(np.unique(every)) == len(every)
    if division.examples_each is None:
        assert sorted(every) == list(range(N_TRAIN))
    else:
        assert {shards.size(c) for c in range(n_clients)} == {division.examples_each}


@given(division=divisions(), seed=seeds)
def test_the_same_seed_shares_out_alike(division, seed):
    first, second = share_out(division, seed), share_out(division, seed)
    assert np.array_equal(first.rows, second.rows)
    assert np.array_equal(first.starts, second.starts)
    assert np.array_equal(first.server, second.server)


def test_another_seed_shares_out_otherwise():
    division = Division(Population(5, 0, 0), 10)
    assert not np.array_equal(share_out(division, 1).rows, share_out(division, 2).rows)


def test_counts_and_places_are_those_of_the_rows():
    shards = share_out(Division(Population(4, 2, 1), 10, GROUPS))
    for clients in (range(4), range(4, 6), range(6, 7), range(3, 3)):
        expected = groups_held(shards, clients).sum(axis=0) if clients else np.zeros(4)
        assert np.array_equal(shards.counts(CODES, 4, clients), expected)
    assert [shards.before(c) for c in range(8)] == [0, 10, 20, 30, 40, 50, 60, 70]


class TestConcentration:
    population = Population(12, 4, 2)

    def held(self, concentration: float, **more) -> np.ndarray:
        division = Division(self.population, 20, GROUPS, concentration, **more)
        return groups_held(share_out(division), range(18))

    def test_at_one_the_minority_keeps_to_its_own_clients(self):
        held = self.held(1.0)
        assert held[:12, 2:].sum() == 0
        assert held[12:16, :2].sum() == 0
        assert held[16:, 2:].sum() == 0

    def test_at_zero_all_clients_hold_the_same_mix_of_as_many_minority_examples(self):
        held = self.held(0.0)
        # 80 of 320 honest examples: a quarter of everybody's, attackers included.
        assert held[:, 2:].sum() == 90
        assert held[:16, 2:].sum() == pytest.approx(80, abs=12)
        assert held[:12, 2:].mean() == pytest.approx(held[12:16, 2:].mean(), rel=0.5)

    @pytest.mark.parametrize("concentration", [0.2, 0.5, 0.9])
    def test_between_it_is_as_far_from_either_as_the_knob_says(self, concentration):
        held = self.held(concentration)
        expected = 80 * (concentration + (1 - concentration) / 4)
        assert held[12:16, 2:].sum() == pytest.approx(expected, abs=1)
        minority_with_majority = 280 * (1 - concentration) / 4
        assert held[np.r_[:12, 16:18], 2:].sum() == pytest.approx(minority_with_majority, abs=1)

    def test_groups_keep_their_natural_shares_within_majority_and_minority(self):
        held = self.held(1.0)
        assert held[np.r_[:12, 16:18]].sum(axis=0).tolist() == [210, 70, 0, 0]
        assert held[12:16].sum(axis=0).tolist() == [0, 0, 53, 27]

    def test_a_minority_client_s_mix_can_be_given(self):
        held = self.held(1.0, minority_mix={3: 1.0, 0: 3.0})
        assert held[12:16].sum(axis=0).tolist() == [60, 0, 0, 20]

    def test_each_minority_client_has_its_own_share_of_a_group_that_the_majority_holds_too(self):
        # Cut from the random order behind the majority's part, it went to one or two of them.
        division = Division(Population(4, 4, 0), 10, GROUPS, minority_mix={3: 3.0, 0: 1.0})
        of_shared = groups_held(share_out(division), range(4, 8))[:, 0]
        assert of_shared.sum() == 10
        assert of_shared.min() >= 1

    def test_each_majority_client_has_its_share_of_a_minority_that_is_spread(self):
        division = Division(Population(6, 2, 0), 50, GROUPS, concentration=0.0)
        held = groups_held(share_out(division), range(8))
        assert held[:, 2].min() >= 2

    def test_the_last_client_s_mix_of_groups_varies_no_more_than_those_of_others(self):
        # In the random order the last rows are of the group whose number is reached last.
        division = Division(Population(8, 2, 0), 30, GROUPS)

        def spread(own: Division) -> np.ndarray:
            shards = [share_out(own, seed) for seed in range(200)]
            return np.std([groups_held(each, range(8))[:, 1] for each in shards], axis=0)

        even, as_stored = spread(division), spread(replace(division, legacy=True))
        assert even[-1] == pytest.approx(even[:-1].mean(), rel=0.2)
        assert as_stored[-1] > 1.5 * as_stored[:-1].mean()

    def test_attackers_hold_the_minority_s_data_if_the_scenario_says_so(self):
        held = self.held(1.0, attackers_hold=Role.HONEST_MINORITY)
        assert held[16:, :2].sum() == 0
        assert held[16:].sum() == 40

    def test_without_a_size_the_minority_s_clients_share_all_there_is_of_it(self):
        division = Division(self.population, None, GROUPS)
        held = groups_held(share_out(division), range(18))
        assert held[12:16].sum(axis=0).tolist() == [0, 0, 80, 40]
        spread = Division(self.population, None, GROUPS, concentration=0)
        held = groups_held(share_out(spread), range(18))
        assert held[12:16].sum(axis=0).tolist() == [80, 27, 18, 9]
        posing = replace(spread, attackers_hold=Role.HONEST_MINORITY)
        assert set(groups_held(share_out(posing), range(18)).sum(axis=1)) == {33, 34}

    def test_without_clients_of_one_kind_everything_is_still_dealt(self):
        for population in (Population(3, 0, 1), Population(0, 3, 0)):
            shards = share_out(Division(population, None, GROUPS))
            assert sorted(shards.rows) == list(range(N_TRAIN))


def test_too_few_examples_of_a_group_are_refused_with_its_name():
    division = Division(Population(1, 3, 0), 40, GROUPS, minority_mix={3: 1.0})
    with pytest.raises(DataError) as error:
        share_out(division)
    assert str(error.value).startswith(
        "clients need 120 examples of the group 'd', but there are 40"
    )
    assert share_out(Division(Population(1, 1, 0), 40, GROUPS, minority_mix={3: 1.0}))


UNSEEN = OwnGroups((*GROUPS.names, "e"), CODES, CODES[:0], frozenset({4}))


def test_a_group_without_examples_has_none_to_deal():
    with pytest.raises(DataError, match="there is no example of a minority group for 2 minority"):
        share_out(Division(Population(1, 2, 0), 10, UNSEEN))
    division = Division(Population(2, 2, 0), 10, UNSEEN, minority_mix={3: 1.0, 4: 1.0})
    with pytest.raises(DataError, match="need 10 examples of the group 'e', but there are 0"):
        share_out(division)
    drawn = overlapping_shards(division, None, LABELS, 0)  # these take others instead
    assert (CODES[drawn.client_rows(3)] == 3).all()
    assert drawn.counts(CODES, 5, range(4)).tolist() == [12, 4, 3, 11, 0]
    nobody = replace(division, population=Population(2, 0, 0), minority_mix=None)
    assert (CODES[overlapping_shards(nobody, None, LABELS, 0).client_rows(1)] < 4).all()


def test_too_many_held_out_examples_are_refused():
    with pytest.raises(DataError, match="590 examples for the server and 11 for validation"):
        share_out(Division(Population(1, 0, 0), 1, n_server=590, n_validation=11))


class TestServer:
    @pytest.mark.parametrize("n_minority", [0, 6, 20])
    def test_as_many_of_its_examples_are_of_minority_groups_as_asked_for(self, n_minority):
        division = Division(
            Population(3, 1, 0), 10, GROUPS, n_server=20, n_server_minority=n_minority
        )
        in_minority = np.isin(CODES[share_out(division).server], [2, 3])
        assert in_minority.tolist() == [True] * n_minority + [False] * (20 - n_minority)

    def test_more_than_there_are_is_refused(self):
        division = Division(Population(1, 0, 0), 1, GROUPS, n_server=130, n_server_minority=121)
        with pytest.raises(DataError, match="cannot keep 121 of 120 minority examples"):
            share_out(division)

    @pytest.mark.parametrize(
        ("share", "expected"), [(0.0, [0, 0]), (0.58, [6, 23]), (1.0, [10, 40])]
    )
    def test_as_many_are_of_a_class_as_asked_for_of_the_minority_s_too(self, share, expected):
        division = Division(
            Population(3, 1, 0), 10, n_server=50, n_server_minority=10, server_bias=(3, share)
        )
        of_class = LABELS[share_out(division).server] == 3
        assert of_class.sum() == sum(expected)
        server = share_out(replace(division, groups=GROUPS)).server
        of_class = LABELS[server] == 3
        assert [of_class[:10].sum(), of_class[10:].sum()] == expected
        assert share == 1 or set(LABELS[server[~of_class]]) == {0, 1, 2, 4}

    def test_where_the_minority_is_a_style_its_examples_are_of_all_classes(self):
        division = Division(Population(3, 1, 0), 10, n_server=50, server_bias=(3, 0.5))
        first = LABELS[share_out(division).server[:10]]  # the server sees the first in that style
        assert 0 < (first == 3).sum() < 10

    def test_where_a_class_is_too_rare_for_its_share_both_are_named(self):
        division = Division(Population(1, 0, 0), 1, n_server=130, server_bias=(3, 1.0))
        fault = (
            "the server cannot keep 130 of 120 examples of class 3: lower server_data.n_examples "
            "or change server_data.bias"
        )
        with pytest.raises(DataError, match=fault):
            share_out(division)
        own = OwnGroups(("a", "b"), (LABELS == 3).astype(int), CODES[:0], frozenset({1}))
        with pytest.raises(DataError, match="keep 65 of 0 majority examples of class 3"):
            share_out(replace(division, groups=own, server_bias=(3, 0.5)))


class TestAttackers:
    wanted = Wanted(LABELS == 3, 0.5)

    @pytest.mark.parametrize("deal", [iid, partial(dirichlet, alpha=0.1)])
    @pytest.mark.parametrize("groups", [None, GROUPS])
    def test_they_get_what_they_can_poison_and_only_of_the_groups_they_pose_as(self, deal, groups):
        division = Division(Population(6, 2, 3), 20, groups, wanted=self.wanted)
        shards = share_out(division, deal=deal)
        for client in division.population.clients(Role.POISONED):
            rows = shards.client_rows(client)
            assert (LABELS[rows] == 3).sum() >= 10
            assert groups is None or (CODES[rows] < 2).all()

    def test_those_who_pose_as_the_minority_may_have_all_of_it_that_they_can_poison(self):
        of_minority = (LABELS == 3) & (CODES >= 2)
        share = of_minority.sum() // 3 / 20
        wanted = Wanted(LABELS == 3, share)
        hold = Role.HONEST_MINORITY
        division = Division(Population(6, 2, 3), 20, GROUPS, attackers_hold=hold, wanted=wanted)
        rows = share_out(division).rows[-60:]
        held = of_minority[rows].reshape(3, 20).sum(axis=1)
        assert (held >= of_minority.sum() // 3).all()
        assert (CODES[rows] >= 2).all()

    def test_honest_clients_mixes_stay_as_the_scenario_says(self):
        division = Division(Population(6, 2, 3), 20, GROUPS, wanted=self.wanted)
        held = groups_held(share_out(division), range(11))
        assert held[6:8, 2:].sum() == 40
        assert held[:6, 2:].sum() == 0


class TestNaturalClients:
    def test_a_writer_is_all_of_the_minority_or_all_of_the_majority(self):
        # Writers 0 to 19 are of group 0, writers 20 to 29 of group 1, but for one example.
        codes = (WRITERS >= 20).astype(int)
        codes[5] = 1
        groups = OwnGroups(("a", "b"), codes, codes[:0], frozenset({1}))
        division = Division(Population(20, 10, 0), None, groups, by_natural_client=True)
        shards = share_out(division, deal=natural, writers=WRITERS)
        held = [set(WRITERS[shards.client_rows(client)]) for client in range(30)]
        assert all(len(writers) == 1 for writers in held)
        assert set.union(*held[:20]) == set(range(20))
        assert set.union(*held[20:]) == set(range(20, 30))
        assert 5 in shards.rows[: shards.starts[20]]


class TestOverlapping:
    @given(
        n_clients=st.integers(1, 30),
        each=st.integers(1, 40),
        n_server=st.integers(0, 80),
        n_attackers=st.integers(0, 5),
        seed=seeds,
        alpha=st.sampled_from([None, 0.1]),
        groups=st.sampled_from([None, GROUPS]),
    )
    def test_no_client_holds_an_example_twice_or_one_of_the_server_s(
        self, n_clients, each, n_server, n_attackers, seed, alpha, groups
    ):
        wanted = Wanted(LABELS == 3, 0.5)
        division = Division(
            Population(n_clients, 2, n_attackers), each, groups, wanted=wanted, n_server=n_server
        )
        shards = overlapping_shards(division, alpha, LABELS, seed)
        for client in range(n_clients + 2 + n_attackers):
            rows = shards.client_rows(client)
            assert len(np.unique(rows)) == len(rows) == each == shards.size(client)
            assert not np.isin(rows, shards.server).any()
            assert np.array_equal(rows, shards.client_rows(client))
            role = division.population.role(client)
            if role is Role.POISONED:
                assert (LABELS[rows] == 3).sum() >= round(each * 0.5)
            if groups is not None:
                assert np.isin(CODES[rows], [2, 3]).all() == (role is Role.HONEST_MINORITY)

    @pytest.mark.parametrize("hold", [Role.HONEST_MAJORITY, Role.HONEST_MINORITY])
    def test_attackers_draw_from_what_those_that_they_pose_as_draw_from(self, hold):
        wanted = Wanted(LABELS == 3, 0.5)
        division = Division(Population(6, 2, 3), 20, GROUPS, attackers_hold=hold, wanted=wanted)
        shards = overlapping_shards(division, None, LABELS, 0)
        for client in division.population.clients(Role.POISONED):
            in_minority = np.isin(CODES[shards.client_rows(client)], [2, 3])
            assert (in_minority == (hold is Role.HONEST_MINORITY)).all()

    def test_attackers_give_examples_of_all_kinds_for_those_that_they_poison(self):
        population = Population(6, 2, 60)
        division = Division(population, 20, GROUPS, wanted=Wanted(LABELS == 3, 0.5))
        shards = overlapping_shards(division, 100.0, LABELS, 0)
        attackers = population.clients(Role.POISONED)
        rows = np.concatenate([shards.client_rows(client) for client in attackers])
        rest = rows[LABELS[rows] != 3]
        # Three of four majority examples are of the first group, and four classes are left.
        assert (CODES[rest] == 0).mean() == pytest.approx(0.75, abs=0.06)
        shares = np.bincount(LABELS[rest], minlength=5) / len(rest)
        assert shares == pytest.approx([0.25, 0.25, 0.25, 0, 0.25], abs=0.06)

    def test_attackers_who_can_poison_nearly_anything_keep_mixes_of_their_own(self):
        population = Population(6, 2, 9)
        division = Division(population, 20, wanted=Wanted(LABELS != 0, 1.0))
        shards = overlapping_shards(division, 0.05, LABELS, 0)
        held = [
            np.bincount(LABELS[shards.client_rows(client)], minlength=5)
            for client in population.clients(Role.POISONED)
        ]
        assert np.max(held, axis=1).mean() > 12  # of four classes alike it would be 7
        assert not np.sum(held, axis=0)[0]

    def test_clients_draw_from_everything_the_server_left(self):
        division = Division(Population(60, 0, 0), 20, n_server=100)
        shards = overlapping_shards(division, None, LABELS, 0)
        held = np.concatenate([shards.client_rows(client) for client in range(60)])
        # 60 clients leave one of the 500 out with probability 0.96^60 = 0.09.
        assert len(set(held)) > 430
        assert not set(held) & set(shards.server)
        assert sorted(shards.server) != list(range(100))

    def test_a_small_alpha_gives_clients_mixes_of_their_own(self):
        shards = overlapping_shards(Division(Population(9, 0, 0), 20), 0.05, LABELS, 0)
        largest = [np.bincount(LABELS[shards.client_rows(c)]).max() for c in range(9)]
        assert np.mean(largest) > 15
        assert len({np.bincount(LABELS[shards.client_rows(c)]).argmax() for c in range(9)}) > 1

    @pytest.mark.parametrize("groups", [GROUPS, None])
    def test_expected_counts_are_near_those_of_the_shards(self, groups):
        division = Division(Population(300, 60, 40), 10, groups, concentration=0.5)
        shards = overlapping_shards(division, None, LABELS, 0)
        for clients in (range(300), range(300, 360), range(360, 400)):
            counts = shards.counts(CODES, 4, clients)
            assert counts.sum() == pytest.approx(10 * len(clients), abs=2)
            drawn = groups_held(shards, clients).sum(axis=0)
            assert drawn == pytest.approx(counts, rel=0.2, abs=25)

    def test_a_shard_larger_than_what_there_is_is_refused(self):
        division = Division(Population(1, 0, 0), 500, n_server=100)
        assert overlapping_shards(division, None, LABELS, 0).size(0) == 500
        division = Division(Population(1, 0, 0), 501, n_server=100)
        with pytest.raises(DataError, match="a client needs 501 examples, but there are 500"):
            overlapping_shards(division, None, LABELS, 0)
        division = Division(Population(1, 1, 0), 121, GROUPS)
        with pytest.raises(DataError, match="a client needs 121 examples, but there are 120"):
            overlapping_shards(division, None, LABELS, 0)
        threes = Wanted(LABELS == 3, 1.0)
        assert overlapping_shards(
            Division(Population(1, 0, 1), 120, wanted=threes), None, LABELS, 0
        )
        with pytest.raises(
            DataError, match="an attacker needs 121 examples that it can poison, but there are 120"
        ):
            overlapping_shards(Division(Population(1, 0, 1), 121, wanted=threes), None, LABELS, 0)

    def test_a_hundred_thousand_clients_are_shared_out_without_being_drawn(self):
        population = Population(90_000, 9_000, 1_000)
        division = Division(population, 200, GROUPS, minority_mix={2: 1.0, 0: 9.0})
        shards = overlapping_shards(division, None, LABELS, 0)
        assert len(shards.client_rows(99_999)) == 200
        assert shards.before(99_999) == 99_999 * 200
