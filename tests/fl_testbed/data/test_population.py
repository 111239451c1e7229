import pytest

from clients.shard import Role
from fl_testbed.data import Population

POPULATION = Population(honest_majority=3, honest_minority=2, poisoned=1)


def test_ids_run_through_the_roles_in_order():
    roles = [POPULATION.role(client) for client in range(len(POPULATION))]
    assert roles == [Role.HONEST_MAJORITY] * 3 + [Role.HONEST_MINORITY] * 2 + [Role.POISONED]


@pytest.mark.parametrize("population", [POPULATION, Population(2, 0, 3), Population(0, 1, 0)])
def test_every_client_is_listed_under_its_own_role_and_no_other(population):
    listed = {client: role for role in Role for client in population.clients(role)}
    assert listed == {client: population.role(client) for client in range(len(population))}
    assert sum(len(population.clients(role)) for role in Role) == len(population)
