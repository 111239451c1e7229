"""A scenario in which a user's own code does all that it can, in a file beside it."""

from pathlib import Path

SCENARIO = """
name: small
rounds: 3
dataset: {kind: "sub/mine.py:bright_spots", args: {n: 600}, minority: {kind: "sub/mine.py:darker"}}
model: {kind: "sub/mine.py:Net", args: {width: 8}}
clients: {honest_majority: 8, honest_minority: 2, poisoned: 2, examples_each: 40}
partition: {kind: "sub/mine.py:sorted_by_class"}
training: {lr: 0.1, batch_size: 10}
poison: {kind: "sub/mine.py:relabelled", target: 0, trigger: {kind: "sub/mine.py:stripe"}}
training_attack: {kind: "sub/mine.py:held_back", args: {share: 0.5}}
attack: {kind: "sub/mine.py:against", args: {scale: 0.5}}
strategy:
  pre_aggregation: [{kind: "sub/mine.py:halved"}]
  aggregation: {kind: "sub/mine.py:without_largest", args: {n_malicious: 2}, is_selection: true}
  reweighting: {kind: "sub/mine.py:by_loss"}
"""
CODE = """
from pathlib import Path

import numpy as np
import torch
from torch import nn

from clients.attacks import Forged
from fl_testbed.data import Dataset, Examples
from strategies.aggregation import Aggregate
from strategies.pre_aggregation import Mixed
from strategies.reweighting import Lift

with Path(f"{__file__}.imports").open("a") as file:
    file.write("x")


def without_largest(updates, prior, n_malicious):
    norms = updates.norm(dim=1)
    kept = norms <= norms.sort().values[-1 - n_malicious]
    weights = kept * prior.to(updates)
    weights = weights / weights.sum()
    return Aggregate(weights @ updates, weights, norms)


def halved(updates):
    return Mixed(updates / 2, torch.eye(len(updates)) / 2)


def by_loss(losses, memory):
    return Lift(losses / losses.sum(), memory)


def against(own, seen, scale):
    return Forged(-scale * seen.mean(dim=0).expand_as(own))


def stripe(images):
    return torch.cat([images[:, :, :-1], torch.ones_like(images[:, :, -1:])], dim=2)


def relabelled(shard, trigger, target):
    poisoned = torch.ones_like(shard.is_poisoned)
    labels = torch.full_like(shard.labels, target)
    return shard._replace(inputs=trigger(shard.inputs), labels=labels, is_poisoned=poisoned)


class Net(nn.Module):
    def __init__(self, input_shape, n_classes, width):
        super().__init__()
        self.hidden = nn.Linear(int(np.prod(input_shape)), width)
        self.last = nn.Linear(width, n_classes)

    def forward(self, images):
        return self.last(torch.relu(self.hidden(images.flatten(start_dim=1))))


def bright_spots(rng, n):
    def draw(n):
        labels = rng.integers(0, 3, n)
        images = rng.random((n, 1, 8, 8)).astype(np.float32) / 2
        images[np.arange(n), 0, labels] += 0.5
        return Examples(images, labels)

    return Dataset("bright spots", draw(n), draw(200), ("a", "b", "c"))


def darker(inputs):
    return inputs / 2


def sorted_by_class(examples, n_clients, rng):
    parts = np.array_split(examples.labels.argsort(kind="stable"), n_clients)
    return [parts[place] for place in rng.permutation(n_clients)]


def held_back(parameters, previous, share):
    for name, value in parameters.items():
        if previous is not None:
            value.lerp_(previous[name], share)
"""


def write_own_scenario(folder: Path) -> Path:
    (folder / "sub").mkdir()
    (folder / "sub" / "mine.py").write_text(CODE)
    path = folder / "scenario.yaml"
    path.write_text(SCENARIO)
    return path


def imports(folder: Path) -> int:
    """How often the code was run from its file."""
    return len((folder / "sub" / "mine.py.imports").read_text())
