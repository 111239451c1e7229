"""The network and the synthetic data of pfl-research's benchmark setting."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clients.shard import Role, Shard

PROTOTYPES = np.random.default_rng(0).normal(size=(10, 7, 7)).astype(np.float32)


class Cnn(nn.Module):
    """Two 5 × 5 convolutions and two linear layers: 201,298 parameters on 28 × 28 images, or
    170,158 with 300 hidden units."""

    def __init__(self, hidden: int = 360) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 5), nn.Conv2d(16, 32, 5)
        self.fc1, self.fc2 = nn.Linear(32 * 4 * 4, hidden), nn.Linear(hidden, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def shard_of(client: int, n_examples: int) -> Shard:
    """Return a client's examples: ten smooth prototypes plus noise that differs by client."""
    rng = np.random.default_rng([1, client])
    labels = rng.integers(0, 10, size=n_examples)
    smooth = PROTOTYPES[labels].repeat(4, axis=1).repeat(4, axis=2)
    noisy = smooth + rng.normal(scale=1.5, size=smooth.shape).astype(np.float32)
    return Shard(
        torch.from_numpy(noisy[:, None].astype(np.float32)),
        torch.from_numpy(labels),
        torch.zeros(n_examples, dtype=torch.long),
        torch.zeros(n_examples, dtype=torch.bool),
        Role.HONEST_MAJORITY,
    )
