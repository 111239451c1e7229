"""A few examples of what clients of each kind hold, to look at."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from clients.shard import HONEST, Role, pooled
from fl_testbed.data.federation import Federation
from strategies.shapes import Tensor

FAINT = 0.35  # the largest change of a pixel that is shown enlarged too


class Specimen(NamedTuple):
    """One example."""

    input: Tensor
    """An image in [0, 1] as (channels, height, width), or a row of features."""
    label: str
    """What it is called."""
    called_before: str = ""
    """Its label before attackers changed it, or in the test the true one; empty if the same."""


class Strip(NamedTuple):
    """Examples with something in common."""

    title: str
    specimens: list[Specimen]


def specimens(
    federation: Federation, attackers: Mapping[str, Sequence[int]], n: int, tested: int | None
) -> list[Strip]:
    """Return examples of honest clients and of each poison: before, after, and in the test.

    Args:
        federation: Who holds what.
        attackers: The client ids of the attackers with each poison, by its name.
        n: How many in a strip, if there are so many.
        tested: How many test examples to look for what attackers are after.
    """
    population, classes = federation.population, federation.dataset.classes
    strips = []
    for role in HONEST:
        clients = population.clients(role)
        if clients:
            # Of several clients, which may hold different minorities, and from all over what they
            # hold: some ways to deal leave it sorted by class.
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
    """Return poisoned examples of all attackers in turn, before and after."""
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
        if len(same):  # an input as it was, and perhaps another's
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
    """Return what a faint poison changes, enlarged round grey; nothing if it can be seen."""
    if not after or after[0].input.dim() != 3:
        return []
    changes = torch.stack([new.input - old.input for old, new in zip(before, after, strict=True)])
    largest = float(changes.abs().max())
    if not 0 < largest <= FAINT:
        return []
    shown = 0.5 + changes * (0.5 / largest)
    return [Strip(f"{name}: the change, × {0.5 / largest:.1f}", [Specimen(x, "") for x in shown])]
