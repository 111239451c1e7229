import numpy as np
import pytest
import torch

from clients.shard import Role, Shard
from fl_testbed.data import Dataset, Examples, Federation, Population
from fl_testbed.data.federation import MAJORITY, MINORITY
from fl_testbed.data.minority import inverted
from fl_testbed.data.partition import equal_shards

POPULATION = Population(honest_majority=3, honest_minority=2, poisoned=1)
EACH, N_SERVER, N_TRAIN, N_TEST = 4, 5, 40, 6


def numbered(n: int, first: int) -> Examples:
    """Images of one pixel, each with a value of its own, so that it can be told by its value."""
    values = np.arange(first, first + n, dtype=np.uint8)
    return Examples(values.reshape(n, 1, 1, 1), values.astype(np.int64) % 10)


def stamped(shard: Shard, attacker: int, rng: np.random.Generator) -> Shard:
    """A poison that leaves a mark and uses chance."""
    noise = torch.from_numpy(rng.random(shard.inputs.shape).astype(np.float32))
    return shard._replace(inputs=noise, is_poisoned=torch.ones_like(shard.is_poisoned))


def federation(poison=stamped, seed: int = 0) -> Federation:
    rng = np.random.default_rng(seed)
    return Federation(
        dataset=Dataset("numbered", numbered(N_TRAIN, 0), numbered(N_TEST, 100), 10),
        partition=equal_shards(len(POPULATION), EACH, N_SERVER, N_TRAIN, rng),
        population=POPULATION,
        group_names=("plain", "inverted"),
        minority=inverted,
        poison=poison,
        seed=seed,
    )


def values_of(shard: Shard) -> set[int]:
    """Which training images a shard holds."""
    pixels = shard.inputs.flatten()
    plain = torch.where(shard.groups == MINORITY, 1 - pixels, pixels)
    return set((plain * 255).round().int().tolist())


def assert_same(first: Shard, second: Shard) -> None:
    assert first.role == second.role
    for one, other in zip(first[:4], second[:4], strict=True):
        assert torch.equal(one, other)


class TestPopulation:
    def test_ids_run_through_the_roles_in_order(self):
        roles = [POPULATION.role(client) for client in range(len(POPULATION))]
        assert roles == [Role.HONEST_MAJORITY] * 3 + [Role.HONEST_MINORITY] * 2 + [Role.POISONED]

    @pytest.mark.parametrize("population", [POPULATION, Population(2, 0, 3), Population(0, 1, 0)])
    def test_every_client_is_listed_under_its_own_role_and_no_other(self, population):
        listed = {client: role for role in Role for client in population.clients(role)}
        assert listed == {client: population.role(client) for client in range(len(population))}
        assert sum(len(population.clients(role)) for role in Role) == len(population)


class TestShards:
    def test_each_holds_its_rows_of_the_training_set_with_their_labels(self):
        fed = federation(poison=None)
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
        fed = federation(poison=None)
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
        shard = federation(poison=None).shard(5)
        assert shard.role is Role.POISONED
        assert not shard.is_poisoned.any()
        assert (shard.groups == MAJORITY).all()

    def test_each_attacker_has_chance_of_its_own(self):
        fed = federation()
        both = Federation(**{**vars(fed), "population": Population(3, 1, 2)})
        assert not torch.equal(both.shard(4).inputs, both.shard(5).inputs)


class TestServerData:
    def test_no_client_holds_any_of_it(self):
        fed = federation(poison=None)
        held = set().union(*(values_of(fed.shard(client)) for client in range(len(POPULATION))))
        server = values_of(fed.server_shard(n_minority=2))
        assert len(server) == N_SERVER
        assert not server & held

    @pytest.mark.parametrize("n_minority", [0, 2, N_SERVER])
    def test_as_much_of_it_is_in_minority_style_as_asked_for(self, n_minority):
        fed = federation()
        shard = fed.server_shard(n_minority)
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


def test_group_counts_are_of_honest_clients_alone():
    assert federation().group_counts() == {"plain": 3 * EACH, "inverted": 2 * EACH}
