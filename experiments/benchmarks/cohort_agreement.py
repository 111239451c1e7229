"""How far clients trained in a cohort end from the same clients trained one by one.

Five clients of 7, 23, 10, 1 and 16 examples, for each kind of model and optimizer; then whole runs
with all clients in one cohort against runs that train them one by one.

    python experiments/benchmarks/cohort_agreement.py
"""

import copy
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measure import report
from torch import nn

from clients.shard import Role, Shard
from clients.training import LocalTraining, train, train_cohort
from fl_testbed import api
from fl_testbed.models import cnn, mlp, resnet18

SIZES = (7, 23, 10, 1, 16)
IMAGES, COLOURS = (1, 28, 28), (3, 16, 16)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MLP": (partial(mlp, IMAGES, 10, [64]), IMAGES),
    "CNN": (partial(cnn, IMAGES, 10, [32, 64], 128), IMAGES),
    "ResNet-18, GroupNorm": (partial(resnet18, COLOURS, 10, 16), COLOURS),
}
EPOCHS = partial(LocalTraining, batch_size=5, local_epochs=3)
OPTIMIZERS = {
    "SGD": EPOCHS(lr=0.05),
    "momentum": EPOCHS(lr=0.05, momentum=0.9),
    "momentum, weight decay": EPOCHS(lr=0.05, momentum=0.9, weight_decay=0.01),
    "Adam": EPOCHS(lr=1e-3, optimizer="adam"),
}
CONFIGS = Path(__file__).parents[2] / "configs"
FASHION = {
    "variants": {"mean": {}},
    "sweep": {"seed": [0]},
    "model": {"kind": "cnn", "filters": [16, 32], "hidden": 64},
    "rounds": 20,
}
RUNS = {
    "quickstart, MLP": ("quickstart.yaml", {}),
    "inverted Fashion-MNIST, CNN": ("inverted_fashion_mnist.yaml", FASHION),
}


def shards(shape: tuple[int, ...], dtype: torch.dtype) -> list[Shard]:
    rng = torch.Generator().manual_seed(1)
    return [
        Shard(
            torch.rand(size, *shape, generator=rng).to(dtype),  # the same numbers in either dtype
            torch.randint(10, (size,), generator=rng),
            torch.zeros(size, dtype=torch.int64),
            torch.zeros(size, dtype=torch.bool),
            Role.HONEST_MAJORITY,
        )
        for size in SIZES
    ]


def flat(state: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.flatten() for value in state.values()])


class Trained(NamedTuple):
    """The first model, and every client's parameters after training in each way."""

    start: torch.Tensor
    together: torch.Tensor
    in_cohorts_of_one: torch.Tensor
    alone: torch.Tensor


def trained(kind: str, settings: LocalTraining, dtype: torch.dtype) -> Trained:
    build, shape = MODELS[kind]
    torch.manual_seed(0)
    model, held = build().to(dtype), shards(shape, dtype)
    start = model.state_dict()

    def in_cohort(clients: Sequence[int]) -> torch.Tensor:
        rngs = [np.random.default_rng(client) for client in clients]
        return train_cohort(model, start, [held[client] for client in clients], settings, rngs)[0]

    alone = []
    for client, shard in enumerate(held):
        local = copy.deepcopy(model)
        train(local, shard, settings, np.random.default_rng(client))
        alone.append(flat(local.state_dict()))
    clients = range(len(held))
    ones = torch.cat([in_cohort([client]) for client in clients])
    return Trained(flat(start), in_cohort(clients), ones, torch.stack(alone))


def of_parameters(kind: str, name: str) -> None:
    settings = OPTIMIZERS[name]
    epochs = trained(kind, settings, torch.float64)
    step = LocalTraining(**{**vars(settings), "batch_size": max(SIZES), "local_epochs": 1})
    rounded = trained(kind, step, torch.float32)
    apart = (rounded.together - rounded.alone).abs()
    figures = {
        "float64, 3 epochs: largest": largest(epochs.together - epochs.alone),
        "float32, 1 step: largest": largest(apart),
    }
    if settings.optimizer == "adam":
        # Adam's first step is lr g / (|g| + 1e-8): where g is only rounding, so is the step's sign.
        descent = trained(kind, LocalTraining(lr=1.0, batch_size=max(SIZES)), torch.float32)
        clear = (descent.alone - descent.start).abs() > 1e-5
        exact = trained(kind, step, torch.float64)
        figures |= {
            "float32, 1 step: largest where |gradient| > 1e-5": largest(apart[clear]),
            "float32, 1 step: from cohorts of one: largest": largest(
                rounded.together - rounded.in_cohorts_of_one
            ),
            "float32, 1 step: one by one, from float64: largest": largest(
                rounded.alone - exact.alone
            ),
        }
    tell(f"{kind}, {name}", figures, "")


def largest(differences: torch.Tensor) -> float:
    return differences.abs().max().item()


def of_runs(name: str) -> None:
    """Compare the accuracies of whole runs."""
    scenario, settings = RUNS[name]
    with tempfile.TemporaryDirectory() as folder:
        one, other = (
            api.run(
                CONFIGS / scenario,
                {**settings, "training.cohort": cohort},
                out=Path(folder) / str(cohort),
                engine="inline",
            )
            for cohort in (1, 1_000)
        )
        apart = (one.compare().filter(like="final") - other.compare().filter(like="final")).abs()
        losses = (one.rounds["loss"] - other.rounds["loss"]).abs()
    setting = f"{name}, {len(apart)} variants"
    accuracies = {
        f"whole runs: largest difference of {figure}": 100 * apart[f"final.{key}.mean"].max()
        for figure, key in (("accuracy", "accuracy"), ("worst group", "worst_group_accuracy"))
    }
    tell(setting, accuracies, "points")
    tell(setting, {"whole runs: largest difference of loss": losses.max()}, "nats")


def tell(setting: str, figures: dict[str, float], unit: str) -> None:
    report("cohort_agreement", setting, {figure: (v, unit) for figure, v in figures.items()})


def main() -> None:
    torch.set_num_threads(1)
    for kind in MODELS:
        for name in OPTIMIZERS:
            of_parameters(kind, name)
    for name in RUNS:
        of_runs(name)


if __name__ == "__main__":
    main()
