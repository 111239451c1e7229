"""A few examples of what each kind of client holds, to look at."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from clients.shard import HONEST, Role, pooled
from fl_testbed.data.federation import Federation
from strategies.shapes import Tensor

FAINT = 0.35  # if no pixel changes more than this, the change is also shown enlarged


class Specimen(NamedTuple):
    """One example."""

    input: Tensor
    """An image in [0, 1] as (channels, height, width), or a row of features."""
    label: str
    """The label that it is shown with."""
    called_before: str = ""
    """Its label before attackers changed it, or in a test the true one; empty if unchanged."""


class Strip(NamedTuple):
    """A row of examples with something in common, and its title."""

    title: str
    specimens: list[Specimen]


def specimens(
    federation: Federation, attackers: Mapping[str, Sequence[int]], n: int, tested: int | None
) -> list[Strip]:
    """Return examples of honest clients, and of each poison before, after, and in the test.

    Args:
        federation: Who holds what.
        attackers: The client ids of the attackers with each poison, by its name.
        n: How many examples a strip has, at most.
        tested: How many test examples to search for those that attackers aim at; None: all.
    """
    population, classes = federation.population, federation.dataset.classes
    strips = []
    for role in HONEST:
        clients = population.clients(role)
        if clients:
            # From several clients, since they may hold different minorities, and spread over all
            # that they hold, since some ways of dealing leave shards sorted by class.
            some = clients[:: max(1, len(clients) // n)][:n]
            inputs, labels = pooled([federation.shard(client) for client in some], role)[:2]
            rows = torch.linspace(0, len(labels) - 1, min(n, len(labels))).long().tolist()
            chosen = [Specimen(inputs[row], classes[labels[row]]) for row in rows]
            strips.append(Strip(role.value.replace("_", " "), chosen))
    goals = federation.poison.goals(federation.majority(federation.test_set(tested)))
    for name, clients in attackers.items():
        strips += _poisoned(federation, name, clients, n)
        if name in goals:
            goal = goals[name]
            wanted = classes[goal.target]
            pairs = zip(goal.inputs[:n], goal.labels[:n].tolist(), strict=True)
            chosen = [Specimen(x, wanted, classes[label]) for x, label in pairs]
            strips.append(Strip(f"{name}: the test, is → wanted", chosen))
    return [strip for strip in strips if strip.specimens]


def _poisoned(federation: Federation, name: str, clients: Sequence[int], n: int) -> list[Strip]:
    """Return poisoned examples, taken from the attackers in turn, before and after poisoning."""
    if not clients:
        return []
    classes = federation.dataset.classes
    held = pooled([federation.clean_shard(client) for client in clients], Role.POISONED)
    pairs = [(federation.clean_shard(c), federation.shard(c)) for c in clients[:n]]
    rows = [poisoned.is_poisoned.nonzero().squeeze(1).tolist() for _, poisoned in pairs]
    turns = [
        (clean, poisoned, own[turn])
        for turn in range(n)
        for (clean, poisoned), own in zip(pairs, rows, strict=True)
        if turn < len(own)
    ]
    before, after = [], []
    for clean, poisoned, row in turns[:n]:
        new, was = poisoned.inputs[row], clean
        same = (held.inputs == new).flatten(1).all(dim=1).nonzero()
        if len(same):  # the input itself is unchanged, and may be another attacker's
            was, old = held, int(same[0])
        else:
            old = row
        label, now = classes[int(was.labels[old])], classes[int(poisoned.labels[row])]
        before.append(Specimen(was.inputs[old], label))
        after.append(Specimen(new, now, label if label != now else ""))
    return [
        Strip(f"{name}: before", before),
        Strip(f"{name}: what attackers train on", after),
        *_change(name, before, after),
    ]


def _change(name: str, before: list[Specimen], after: list[Specimen]) -> list[Strip]:
    """Return what a faint poison changes, enlarged around grey; nothing if it is easy to see."""
    if not after or after[0].input.dim() != 3:
        return []
    changes = torch.stack([new.input - old.input for old, new in zip(before, after, strict=True)])
    largest = float(changes.abs().max())
    if not 0 < largest <= FAINT:
        return []
    shown = 0.5 + changes * (0.5 / largest)
    return [Strip(f"{name}: the change, × {0.5 / largest:.1f}", [Specimen(x, "") for x in shown])]
