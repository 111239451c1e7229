"""Local training: on one shard, and on a cohort of shards at once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, vmap

from clients.shard import Shard
from strategies.shapes import Float, Int, Tensor

EVALUATION_BATCH = 1_000


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains."""

    lr: float
    """Learning rate per step."""
    batch_size: int
    """Examples per step; the last batch of an epoch may be smaller."""
    local_epochs: int = 1
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.0
    """Of SGD."""
    weight_decay: float = 0.0

    def build_optimizer(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return a new optimizer: its state lasts for one client and one round."""
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )


State = dict[str, Tensor]
"""A model's parameters and buffers by name."""

StepHook = Callable[[State, int, bool], None]
"""Run after an optimizer step, without gradients: it may change the parameters in place. It is told
the step, from 1, and whether it is the last."""


def batches(
    n_examples: int, settings: LocalTraining, rng: np.random.Generator
) -> list[Int[np.ndarray, " batch"]]:
    """Return the examples of every step, in order: a new permutation each epoch."""
    size = settings.batch_size
    return [
        order[start : start + size]
        for order in (rng.permutation(n_examples) for _ in range(settings.local_epochs))
        for start in range(0, n_examples, size)
    ]


def train(
    model: nn.Module,
    shard: Shard,
    settings: LocalTraining,
    rng: np.random.Generator,
    hook: StepHook | None = None,
) -> float:
    """Train a model in place on one shard; an attacker's ``hook`` runs after each step.

    Returns:
        The mean loss over all examples seen, each at the time it was seen.
    """
    model.train()
    optimizer = settings.build_optimizer(list(model.parameters()))
    total, seen = 0.0, 0
    steps = batches(len(shard.labels), settings, rng)
    with own_draws(model, rng):
        for step, batch in enumerate(steps, start=1):
            rows = torch.from_numpy(batch)
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(shard.inputs[rows]), shard.labels[rows])
            loss.backward()
            optimizer.step()
            if hook is not None:
                with torch.no_grad():
                    hook(dict(model.named_parameters()), step, step == len(steps))
            total += loss.item() * len(batch)
            seen += len(batch)
    return total / seen


@contextmanager
def own_draws(model: nn.Module, rng: np.random.Generator) -> Iterator[None]:
    """Let dropout draw from a client's own generator, and not from the process's."""
    if not any(isinstance(layer, nn.Dropout) for layer in model.modules()):
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        yield


class _Schedule(NamedTuple):
    """Every step of a cohort, clients with more steps first."""

    order: Int[Tensor, " clients"]
    """Which client stands in which row."""
    rows: Int[Tensor, "clients steps batch"]
    """Examples of each step, as rows of the padded shards; 0 where padded."""
    present: Float[Tensor, "clients steps batch"]
    """1 for an example, 0 for padding."""
    n_active: list[int]
    """How many clients still train in each step."""
    n_steps: list[int]
    """How many steps the client in each row trains."""


def train_cohort(
    model: nn.Module,
    start: State,
    shards: Sequence[Shard],
    settings: LocalTraining,
    rngs: Sequence[np.random.Generator],
    hooks: Sequence[StepHook | None] | None = None,
) -> tuple[State, Float[Tensor, " clients"]]:
    """Train a cohort of clients at once from the same model.

    Each client sees the same batches in the same order as in :func:`train`; the results agree up
    to the order of float32 sums. Shards may differ in size: shorter ones are padded, and a client
    that is done is left alone, its optimizer state included.

    Args:
        model: Gives the forward pass; must work under ``torch.func.vmap`` (GroupNorm does,
            BatchNorm does not). Its own parameters are not changed.
        start: The parameters and buffers that every client starts from.
        shards: One per client.
        settings: The same for all.
        rngs: One per client, for its order of examples.
        hooks: One per client, None for those that are honest; none at all by default.

    Returns:
        The trained parameters, stacked along a first axis of clients, and each client's mean loss
        over all examples seen.
    """
    model.train()
    schedule = _schedule([len(shard.labels) for shard in shards], settings, rngs)
    inputs = _padded([shards[i].inputs for i in schedule.order.tolist()])
    labels = _padded([shards[i].labels for i in schedule.order.tolist()])
    trained = {
        name: _repeated(start[name], len(shards))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    fixed = {name: value for name, value in start.items() if name not in trained}

    def loss_of(parameters: State, x: Tensor, y: Tensor, present: Tensor) -> Tensor:
        logits = functional_call(model, {**parameters, **fixed}, (x,))
        losses = F.cross_entropy(logits, y, reduction="none")
        return (losses * present).sum() / present.sum()

    losses_of = vmap(loss_of, randomness="different")
    totals = torch.zeros(len(shards), dtype=torch.float64)
    optimizer: torch.optim.Optimizer | None = None
    active: list[Tensor] = []
    for step, n_active in enumerate(schedule.n_active):
        if optimizer is None or n_active < len(active[0]):
            active, optimizer = _narrowed(trained, n_active, settings, active, optimizer)
        rows, present = schedule.rows[:n_active, step], schedule.present[:n_active, step]
        clients = torch.arange(n_active)[:, None]
        losses = losses_of(
            dict(zip(trained, active, strict=True)),
            inputs[clients, rows],
            labels[clients, rows],
            present,
        )
        gradients = torch.autograd.grad(losses.sum(), active)
        for parameter, gradient in zip(active, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        if hooks is not None:
            _run_hooks(hooks, schedule, dict(zip(trained, active, strict=True)), step + 1)
        totals[:n_active] += (losses.detach() * present.sum(dim=1)).double()
    back = schedule.order.argsort()
    seen = schedule.present.sum(dim=(1, 2)).double()
    return {name: value.detach()[back] for name, value in trained.items()}, (totals / seen)[back]


@torch.no_grad()
def _run_hooks(
    hooks: Sequence[StepHook | None], schedule: _Schedule, active: State, step: int
) -> None:
    for row in range(schedule.n_active[step - 1]):
        hook = hooks[int(schedule.order[row])]
        if hook is not None:
            own = {name: value[row] for name, value in active.items()}
            hook(own, step, step == schedule.n_steps[row])


def _schedule(
    sizes: Sequence[int], settings: LocalTraining, rngs: Sequence[np.random.Generator]
) -> _Schedule:
    steps = [batches(size, settings, rng) for size, rng in zip(sizes, rngs, strict=True)]
    order = sorted(range(len(sizes)), key=lambda i: -len(steps[i]))
    width = min(settings.batch_size, max(sizes))
    rows = np.zeros((len(sizes), len(steps[order[0]]), width), dtype=np.int64)
    present = np.zeros(rows.shape, dtype=np.float32)
    for place, client in enumerate(order):
        for step, batch in enumerate(steps[client]):
            rows[place, step, : len(batch)] = batch
            present[place, step, : len(batch)] = 1
    n_active = [sum(len(s) > step for s in steps) for step in range(rows.shape[1])]
    return _Schedule(
        torch.tensor(order),
        torch.from_numpy(rows),
        torch.from_numpy(present),
        n_active,
        [len(steps[client]) for client in order],
    )


def _padded(tensors: Sequence[Tensor]) -> Tensor:
    return nn.utils.rnn.pad_sequence(list(tensors), batch_first=True)


def _repeated(value: Tensor, times: int) -> Tensor:
    return value.detach().unsqueeze(0).repeat(times, *[1] * value.dim())


def _narrowed(
    trained: State,
    n_active: int,
    settings: LocalTraining,
    old: Sequence[Tensor],
    old_optimizer: torch.optim.Optimizer | None,
) -> tuple[list[Tensor], torch.optim.Optimizer]:
    """Return views on the first clients' parameters, and an optimizer that goes on with them."""
    active = [value[:n_active].requires_grad_() for value in trained.values()]
    optimizer = settings.build_optimizer(active)
    if old_optimizer is not None:
        for view, before in zip(active, old, strict=True):
            optimizer.state[view] = {
                key: value[:n_active] if value is not None and value.dim() else value
                for key, value in old_optimizer.state[before].items()
            }
    return active, optimizer
