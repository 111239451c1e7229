"""The model, its data and its training, independent of any server."""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

N_TEST = 397  # of 1,797 digits; the others go to the clients


class Net(nn.Sequential):
    """One hidden layer."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]


def load_data(partition: int, n_partitions: int, *, flipped: bool) -> TensorDataset:
    """Return a client's examples: an equal part of the digits, every label wrong if flipped."""
    images, labels = (part[N_TEST:][partition::n_partitions] for part in digits())
    return TensorDataset(images, 9 - labels if flipped else labels)


def load_test_data() -> TensorDataset:
    return TensorDataset(*(part[:N_TEST] for part in digits()))


def train(net: nn.Module, data: TensorDataset, epochs: int, lr: float, batch_size: int) -> float:
    """Train; return the mean loss."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    losses = []
    for _ in range(epochs):
        for images, labels in DataLoader(data, batch_size, shuffle=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.no_grad()
def test(net: nn.Module, data: TensorDataset) -> tuple[float, float]:
    """Return the mean loss and the accuracy."""
    images, labels = data.tensors
    logits = net(images)
    accuracy = (logits.argmax(dim=1) == labels).float().mean()
    return F.cross_entropy(logits, labels).item(), accuracy.item()
