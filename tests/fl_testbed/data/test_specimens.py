import numpy as np
import torch

from clients.shard import Role, Shard
from fl_testbed.data import Dataset, Examples, Federation, Goal, Population
from fl_testbed.data.dealing import iid
from fl_testbed.data.federation import Poison
from fl_testbed.data.groups import StyleGroups
from fl_testbed.data.partition import Division, disjoint_shards
from fl_testbed.data.specimens import specimens
from fl_testbed.data.styles import inverted

IMAGES = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
EXAMPLES = Examples(IMAGES, np.arange(40) % 2)
DATASET = Dataset("numbered", EXAMPLES, EXAMPLES, ("even", "odd"))


class Fake:
    """Client 2 relabels its first two examples, client 3 overwrites its first with another."""

    def __call__(
        self, shard: Shard, client: int, rng: np.random.Generator, learnt: object
    ) -> Shard:
        marks = torch.arange(len(shard.labels)) < 4 - client
        if client == 2:
            labels = torch.where(marks, 1 - shard.labels, shard.labels)
            return shard._replace(labels=labels, is_poisoned=marks)
        inputs, labels = shard.inputs.clone(), shard.labels.clone()
        inputs[0], labels[0] = shard.inputs[3], 1 - shard.labels[3]
        return shard._replace(inputs=inputs, labels=labels, is_poisoned=marks)

    def goals(self, test) -> dict[str, Goal]:
        test = test.where(test.labels == 0)
        return {"fake": Goal(test.inputs, test.labels, 1)}


def test_a_sheet_has_honest_clients_and_each_poison_before_after_and_in_the_test():
    population = Population(1, 1, 2)
    division = Division(population, 4)
    groups = StyleGroups(("plain", "inverted"), inverted)
    shares = disjoint_shards(division, iid, EXAMPLES.labels, None, np.random.default_rng(0))
    federation = Federation(DATASET, groups, division, shares, Fake(), seed=0)
    majority, minority, before, after, tested = specimens(federation, {"fake": [2, 3]}, 3, None)
    for strip, role in ((majority, Role.HONEST_MAJORITY), (minority, Role.HONEST_MINORITY)):
        shard = federation.shard(population.clients(role)[0])
        assert strip.title == role.value.replace("_", " ")
        spread = shard.inputs[[0, 1, 3]]  # of four, first and last among them
        assert torch.equal(torch.stack([s.input for s in strip.specimens]), spread)
    # Attackers take turns: the first one's first, the second's only, the first one's second.
    numbers = [round(float(s.input) * 255) for s in after.specimens]
    first, second = (federation.clean_shard(client) for client in (2, 3))
    held = [first.inputs[0], second.inputs[3], first.inputs[1]]
    assert numbers == [round(float(x) * 255) for x in held]
    # What is overwritten was called what the image that took its place is.
    names = [("even", "odd")[number % 2] for number in numbers]
    assert [s.label for s in before.specimens] == names
    assert [s.called_before for s in after.specimens] == names
    assert all(s.label != s.called_before for s in after.specimens)
    assert [(s.label, s.called_before) for s in tested.specimens] == [("odd", "even")] * 3


def test_examples_are_of_several_clients_of_a_role():
    division = Division(Population(1, 2, 0), 4)
    groups = StyleGroups(("plain", "inverted"), inverted)
    shares = disjoint_shards(division, iid, EXAMPLES.labels, None, np.random.default_rng(0))
    federation = Federation(DATASET, groups, division, shares, Poison(), seed=0)
    _, minority = specimens(federation, {}, 2, None)
    assert minority.specimens[0].input == federation.shard(1).inputs[0]
    assert minority.specimens[1].input == federation.shard(2).inputs[3]
