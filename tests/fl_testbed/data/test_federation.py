from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.shard import HONEST, Role, Shard
from fl_testbed.data import Dataset, Examples, Federation, Population
from fl_testbed.data.dealing import iid, natural
from fl_testbed.data.federation import Poison
from fl_testbed.data.groups import Groups, StyleGroups, groups_by
from fl_testbed.data.partition import Division, disjoint_shards, overlapping_shards
from fl_testbed.data.styles import inverted

POPULATION = Population(honest_majority=3, honest_minority=2, poisoned=1)
EACH, N_SERVER, N_TRAIN, N_TEST = 4, 5, 40, 6
MAJORITY, MINORITY = 0, 1
STYLES = StyleGroups(("plain", "inverted"), inverted)


def numbered(n: int, first: int) -> Examples:
    """Images of one pixel, each with a value of its own, so that it can be told by its value."""
    values = np.arange(first, first + n, dtype=np.uint8)
    labels = values.astype(np.int64) % 10
    return Examples(values.reshape(n, 1, 1, 1), labels, {"half": labels // 5})


DATASET = Dataset(
    "numbered",
    numbered(N_TRAIN, 0),
    numbered(N_TEST, 100),
    tuple("0123456789"),
    {"half": ("low", "high")},
)
HALVES = groups_by(DATASET, ["half"], ["high"])


def stamped(shard: Shard, attacker: int, rng: np.random.Generator, learnt: object) -> Shard:
    """A poison that leaves a mark and uses chance."""
    noise = torch.from_numpy(rng.random(shard.inputs.shape).astype(np.float32))
    return shard._replace(inputs=noise, is_poisoned=torch.ones_like(shard.is_poisoned))


def federation(
    poison=stamped, seed: int = 0, groups: Groups = STYLES, n_server_minority: int = 2, **division
) -> Federation:
    settings = {"population": POPULATION, "examples_each": EACH, "n_server": N_SERVER} | division
    own = None if groups is STYLES else groups
    who = Division(groups=own, n_server_minority=n_server_minority, **settings)
    rng = np.random.default_rng(seed)
    partition = disjoint_shards(who, iid, DATASET.train.labels, None, rng)
    return Federation(DATASET, groups, who, partition, poison, seed)


def values_of(shard: Shard) -> set[int]:
    """Which training images a shard holds."""
    pixels = shard.inputs.flatten()
    plain = torch.where(shard.groups == MINORITY, 1 - pixels, pixels)
    return set((plain * 255).round().int().tolist())


def assert_same(first: Shard, second: Shard) -> None:
    assert first.role == second.role
    for one, other in zip(first[:4], second[:4], strict=True):
        assert torch.equal(one, other)


class TestShards:
    def test_each_holds_its_rows_of_the_training_set_with_their_labels(self):
        fed = federation(poison=Poison())
        for client in range(len(POPULATION)):
            shard = fed.shard(client)
            assert values_of(shard) == set(fed.partition.client_rows(client).tolist())
            assert shard.labels.tolist() == [row % 10 for row in fed.partition.client_rows(client)]

    @pytest.mark.parametrize("client", range(len(POPULATION)))
    def test_one_is_the_same_however_often_and_in_whatever_order_it_is_asked_for(self, client):
        fed = federation()
        others = [fed.shard(other) for other in range(len(POPULATION))]
        assert_same(fed.shard(client), others[client])
        assert_same(federation().shard(client), others[client])

    def test_writing_into_one_does_not_change_the_dataset(self):
        fed = federation()
        fed.shard(0).inputs.zero_()
        fed.shard(0).labels.zero_()
        fed.test_set(None).labels.zero_()
        assert_same(fed.shard(0), federation().shard(0))
        assert fed.dataset.test.labels.any()

    def test_only_the_minority_s_images_are_inverted(self):
        fed = federation(poison=Poison())
        for client in range(len(POPULATION)):
            shard = fed.shard(client)
            images = fed.dataset.train.unit_inputs(fed.partition.client_rows(client))
            if shard.role is Role.HONEST_MINORITY:
                assert (shard.groups == MINORITY).all()
                torch.testing.assert_close(shard.inputs, torch.from_numpy(1 - images))
            else:
                assert (shard.groups == MAJORITY).all()
                assert torch.equal(shard.inputs, torch.from_numpy(images))

    def test_only_attackers_are_poisoned(self):
        fed = federation()
        poisoned = [bool(fed.shard(client).is_poisoned.any()) for client in range(len(POPULATION))]
        assert poisoned == [False] * 5 + [True]

    def test_attackers_without_a_poison_hold_clean_majority_data(self):
        shard = federation(poison=Poison()).shard(5)
        assert shard.role is Role.POISONED
        assert not shard.is_poisoned.any()
        assert (shard.groups == MAJORITY).all()

    def test_each_attacker_has_chance_of_its_own(self):
        fed = federation(population=Population(3, 1, 2))
        assert not torch.equal(fed.shard(4).inputs, fed.shard(5).inputs)

    def test_attackers_may_hold_the_minority_s_data(self):
        shard = federation(poison=Poison(), attackers_hold=Role.HONEST_MINORITY).shard(5)
        assert (shard.groups == MINORITY).all()
        held = federation(Poison(), groups=HALVES, attackers_hold=Role.HONEST_MINORITY).shard(5)
        assert (held.labels >= 5).all()

    def test_an_example_s_own_group_is_the_shard_s(self):
        fed = federation(poison=Poison(), groups=HALVES)
        for client in range(len(POPULATION)):
            shard = fed.shard(client)
            assert torch.equal(shard.groups, shard.labels // 5)
            assert (shard.groups == int(shard.role is Role.HONEST_MINORITY)).all()
            assert values_of(shard._replace(groups=shard.groups * 0)) == set(
                fed.partition.client_rows(client).tolist()
            )


class TestSpread:
    @pytest.mark.parametrize("concentration", [0.0, 0.25, 0.6, 1.0])
    def test_minority_style_is_spread_as_far_as_the_knob_says(self, concentration):
        population = Population(6, 2, 2)
        fed = federation(Poison(), population=population, n_server=0, concentration=concentration)
        held = [int(fed.shard(client).groups.sum()) for client in range(10)]
        # 8 honest clients hold 8 of 32 examples in minority style, whoever holds them.
        assert sum(held[:8]) == 8
        assert sum(held[6:8]) == round(8 * (concentration + (1 - concentration) / 4))
        assert sum(held[8:]) == round(8 * (1 - concentration) / 4)
        assert fed.group_counts(*HONEST).tolist() == [24, 8]

    def test_any_of_a_client_s_examples_may_be_the_restyled_ones(self):
        fed = federation(Poison(), population=Population(6, 2, 2), n_server=0, concentration=0.0)
        marks = np.array([fed.shard(client).groups.numpy() for client in range(10)])
        assert (marks.sum(axis=1) == 1).all()
        assert (marks.sum(axis=0) > 0).sum() >= 3


class TestServerData:
    def test_no_client_holds_any_of_it(self):
        fed = federation(poison=Poison())
        held = set().union(*(values_of(fed.shard(client)) for client in range(len(POPULATION))))
        server = values_of(fed.server_shard())
        assert len(server) == N_SERVER
        assert not server & held

    @pytest.mark.parametrize("n_minority", [0, 2, N_SERVER])
    def test_as_much_of_it_is_in_minority_style_as_asked_for(self, n_minority):
        fed = federation(n_server_minority=n_minority)
        shard = fed.server_shard()
        assert shard.groups.tolist() == [MINORITY] * n_minority + [MAJORITY] * (
            N_SERVER - n_minority
        )
        images = torch.from_numpy(fed.dataset.train.unit_inputs(fed.partition.server))
        images[:n_minority] = 1 - images[:n_minority]
        torch.testing.assert_close(shard.inputs, images)
        assert not shard.is_poisoned.any()


class TestTestSet:
    def test_every_image_is_there_once_for_each_group_with_the_same_label(self):
        test = federation().test_set(None)
        plain, other = test.inputs[:N_TEST], test.inputs[N_TEST:]
        torch.testing.assert_close(other, 1 - plain)
        assert test.labels[:N_TEST].tolist() == test.labels[N_TEST:].tolist() == [0, 1, 2, 3, 4, 5]
        assert test.groups.tolist() == [MAJORITY] * N_TEST + [MINORITY] * N_TEST

    def test_it_holds_the_first_images_of_the_test_set(self):
        test = federation().test_set(2)
        pixels = (test.inputs.flatten() * 255).round().int().tolist()
        assert pixels == [100, 101, 155, 154]


class TestValidation:
    def test_it_is_held_by_nobody_and_grouped_as_the_test_set_is(self):
        fed = federation(poison=Poison(), n_validation=3)
        held = set().union(*(values_of(fed.shard(client)) for client in range(len(POPULATION))))
        validation = fed.validation_set()
        assert validation.groups.tolist() == [MAJORITY] * 3 + [MINORITY] * 3
        values = set((validation.inputs[:3].flatten() * 255).round().int().tolist())
        assert values == set(fed.partition.validation.tolist())
        assert not values & (held | values_of(fed.server_shard()))

    def test_examples_keep_their_own_groups(self):
        fed = federation(groups=HALVES, examples_each=1, n_validation=8)
        validation = fed.validation_set()
        assert torch.equal(validation.groups, validation.labels // 5)


class TestCounts:
    def test_group_counts_are_of_honest_clients_alone(self):
        for groups in (STYLES, HALVES):
            held = federation(groups=groups).group_counts(*HONEST)
            assert held.tolist() == [3 * EACH, 2 * EACH]

    @pytest.mark.parametrize("groups", [STYLES, HALVES], ids=["styles", "attributes"])
    def test_holdings_count_the_groups_of_every_client(self, groups):
        clients = federation(groups=groups, concentration=0.5)
        for client, held in enumerate(clients.holdings()):
            assert (
                held.tolist() == clients.clean_shard(client).groups.bincount(minlength=2).tolist()
            )

    @pytest.mark.parametrize("groups", [STYLES, HALVES], ids=["styles", "attributes"])
    def test_cells_are_the_classes_of_each_group_in_turn(self, groups):
        fed = federation(groups=groups, concentration=0.5)
        for client, held in zip((4, 0), fed.cell_counts([4, 0]), strict=True):
            shard = fed.clean_shard(client)
            cells = shard.groups * fed.dataset.n_classes + shard.labels
            assert held.tolist() == cells.bincount(minlength=20).tolist()

    def test_groups_are_counted_among_what_models_are_judged_by(self):
        assert federation(n_validation=3).tested_counts("validation", None).tolist() == [3, 3]
        assert federation().tested_counts("test", None).tolist() == [N_TEST, N_TEST]
        assert federation(groups=HALVES).tested_counts("test", None).tolist() == [5, 1]
        assert federation().tested_counts("test", 2).tolist() == [2, 2]

    @pytest.mark.parametrize("groups", [STYLES, HALVES], ids=["styles", "attributes"])
    def test_groups_are_counted_by_role(self, groups):
        held = [federation(groups=groups).group_counts(role).tolist() for role in Role]
        assert held == [[3 * EACH, 0], [0, 2 * EACH], [EACH, 0]]


@pytest.mark.parametrize("groups", [STYLES, HALVES])
def test_a_natural_clients_own_tests_are_by_it_and_in_the_style_that_it_sees(groups):
    by_two = [replace(part, clients=part.labels // 2) for part in (DATASET.train, DATASET.test)]
    dataset = replace(DATASET, train=by_two[0], test=by_two[1])
    n_clients = 3 if groups is HALVES else 5
    population = Population(3, 0, 0) if groups is HALVES else Population(0, 5, 0)
    who = Division(population, None, n_validation=20, by_natural_client=True)
    rng, clients = np.random.default_rng(0), dataset.train.clients
    partition = disjoint_shards(who, natural, dataset.train.labels, clients, rng)
    fed = Federation(dataset, groups, who, partition, Poison(), 0)
    for client in range(n_clients):
        (writer,) = set((fed.clean_shard(client).labels // 2).tolist())
        for split, test in (("test", fed.test_set(5)), ("validation", fed.validation_set())):
            own = test.where(torch.from_numpy(fed.own_tests(client, split, 5)))
            by_it = (test.labels // 2 == writer) & ((test.groups == MINORITY) | (groups is HALVES))
            by_it &= writer < 3  # nobody else is in the test set
            assert own.inputs.tolist() == test.where(by_it).inputs.tolist()
    dealt_otherwise = replace(fed, division=replace(who, by_natural_client=False))
    tested_on_others = replace(fed, dataset=replace(dataset, test=DATASET.test))
    for without in (federation(), dealt_otherwise, tested_on_others):
        assert not len(without.own_tests(0, "validation", 5))


def test_overlapping_shards_are_made_on_demand():
    who = Division(Population(90_000, 9_000, 1_000), EACH, concentration=0.5)
    partition = overlapping_shards(who, None, DATASET.train.labels, seed=0)
    fed = Federation(DATASET, STYLES, who, partition, Poison(), 0)
    assert len(fed.shard(99_999).labels) == EACH
    assert fed.group_counts(*HONEST).sum() == 99_000 * EACH
    assert fed.shard(95_000).groups.sum() in (2, 3)


def test_holdings_of_overlapping_shards_are_what_each_client_drew():
    # By expected numbers, a half of each group, a client with one example would hold none.
    who = Division(POPULATION, 1, groups=HALVES, concentration=0.0)
    partition = overlapping_shards(who, None, DATASET.train.labels, seed=0)
    fed = Federation(DATASET, HALVES, who, partition, Poison(), 0)
    drawn = [fed.clean_shard(client).groups.item() for client in range(len(POPULATION))]
    assert fed.holdings().argmax(dim=1).tolist() == drawn
    assert fed.holdings().sum(dim=1).tolist() == [1] * len(POPULATION)
