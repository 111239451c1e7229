"""Local training: on one shard, and on a cohort of shards at once."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from inspect import unwrap
from typing import Literal, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, vmap

from clients.convolutions import ConvolutionsAsProducts
from clients.shard import Shard
from strategies.shapes import Float, Int, Tensor

EVALUATION_BATCH = 1_000  # examples tested at a time


_Kind = TypeVar("_Kind", bound=type[torch.optim.Optimizer])


def _without_compiler(kind: _Kind) -> _Kind:
    """Return an optimizer class without the wrappers that torch puts around its methods for
    ``torch.compile``.

    It computes the same, and no process imports the compiler, which takes almost as long as the
    rest of torch.
    """
    methods = {
        "add_param_group": unwrap(kind.add_param_group),
        "zero_grad": unwrap(kind.zero_grad),
        "step": torch.no_grad()(unwrap(kind.step)),
    }
    return cast(_Kind, type(kind.__name__, (kind,), methods))


_SGD, _Adam = _without_compiler(torch.optim.SGD), _without_compiler(torch.optim.Adam)


class NoCohortError(RuntimeError):
    """A model cannot be trained in a cohort: the random numbers it draws while it trains would
    depend on who else is in it, or the statistics it keeps of its data, as BatchNorm does, would
    mix all clients'."""


NO_COHORT = {
    "randomness error mode": "the model draws random numbers while it trains",
    "running_mean or running_var": "the model keeps running means of its data (BatchNorm)",
}
"""The reason, by words in the error that ``vmap`` raises."""


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains."""

    lr: float
    """Learning rate per step."""
    batch_size: int
    """Examples per step; the last batch of an epoch may be smaller."""
    local_epochs: int = 1
    """Passes over the examples."""
    local_steps: int | None = None
    """Steps in place of epochs; with 1 a client sends a single gradient."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.0
    """SGD's momentum."""
    weight_decay: float = 0.0

    def build_optimizer(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return a new optimizer: its state lasts for one client and one round."""
        if self.optimizer == "adam":
            return _Adam(parameters, lr=self.lr, weight_decay=self.weight_decay)
        return _SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


State = dict[str, Tensor]
"""A model's parameters and buffers by name."""

StepHook = Callable[[State, int, bool], None]
"""Run after an optimizer step, without gradients: it may change the parameters in place. It is told
the step, from 1, and whether it is the last."""


@runtime_checkable
class Objective(Protocol):
    """What one client minimises in place of the mean cross-entropy. It may change step by step."""

    def begin(self, received: State, shard: Shard) -> None:
        """Take the received model and the examples, on the device of the training.

        Called again if the training ran out of memory and is repeated.
        """
        ...

    def loss(
        self,
        parameters: State,
        logits: Float[Tensor, "batch classes"],
        rows: Int[Tensor, " batch"],
    ) -> Tensor:
        """Return the loss of a step, whose examples are these rows of the shard."""
        ...


def batches(
    n_examples: int, settings: LocalTraining, rng: np.random.Generator
) -> list[Int[np.ndarray, " batch"]]:
    """Return the examples of every step, in order: a new permutation each epoch.

    ``local_steps`` may cut the last epoch short.
    """
    size, n_steps = settings.batch_size, settings.local_steps
    in_an_epoch = range(0, n_examples, size)
    n_epochs = settings.local_epochs if n_steps is None else math.ceil(n_steps / len(in_an_epoch))
    steps = [
        order[start : start + size]
        for order in (rng.permutation(n_examples) for _ in range(n_epochs))
        for start in in_an_epoch
    ]
    return steps[:n_steps]


def train(
    model: nn.Module,
    shard: Shard,
    settings: LocalTraining,
    rng: np.random.Generator,
    hook: StepHook | None = None,
    objective: Objective | None = None,
) -> float:
    """Train a model in place on one shard; an attacker's ``hook`` runs after each step.

    The loss is that of the ``objective``, by default the mean cross-entropy. Torch's global
    generators, from which a model may draw (dropout does), are seeded from ``rng``.

    Returns:
        The mean loss over all examples seen, each at the time it was seen.
    """
    model.train()
    optimizer = settings.build_optimizer(list(model.parameters()))
    steps = batches(len(shard.labels), settings, rng)
    sizes = [len(batch) for batch in steps]
    order = torch.from_numpy(np.concatenate(steps)).to(shard.labels.device)
    losses: list[Tensor] = []
    with own_draws(order.device, rng):
        for step, rows in enumerate(order.split(sizes), start=1):
            optimizer.zero_grad(set_to_none=True)
            logits = model(shard.inputs[rows])
            if objective is None:
                loss = F.cross_entropy(logits, shard.labels[rows])
            else:
                loss = objective.loss(dict(model.named_parameters()), logits, rows)
            loss.backward()
            optimizer.step()
            if hook is not None:
                with torch.no_grad():
                    hook(dict(model.named_parameters()), step, step == len(steps))
            losses.append(loss.detach())
    total = 0.0
    # Read together at the end: each reading would make the host wait for a GPU.
    for loss, size in zip(torch.stack(losses).tolist(), sizes, strict=True):
        total += loss * size
    return total / len(order)


def gradient_of(model: nn.Module, start: State, shard: Shard, batch_size: int) -> State:
    """Return the gradient of the summed loss on a shard, computed in batches.

    The model is in evaluation mode: it draws no random numbers, and no buffer changes.
    """
    model.eval()
    like = trainable(model, start)
    parameters = {name: value.detach().requires_grad_() for name, value in like.items()}
    total = {name: torch.zeros_like(value) for name, value in like.items()}
    rows = zip(shard.inputs.split(batch_size), shard.labels.split(batch_size), strict=True)
    for inputs, labels in rows:
        logits = functional_call(model, {**start, **parameters}, (inputs,))
        loss = F.cross_entropy(logits, labels, reduction="sum")
        parts = torch.autograd.grad(loss, list(parameters.values()))
        for value, part in zip(total.values(), parts, strict=True):
            value += part
    return total


@contextmanager
def own_draws(device: torch.device, rng: np.random.Generator) -> Iterator[None]:
    """Let a model draw from a client's own generator, and not from the process's.

    This is done for every model, since no list of layers names all that draw. Only the generators
    of the CPU and of the device are seeded, since only those are restored; ``torch.manual_seed``
    would seed every GPU's.
    """
    seed, on_gpu = int(rng.integers(2**63)), device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@torch.no_grad()
def logits_of(model: nn.Module, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n classes"]:
    """Return a model's outputs, in evaluation mode."""
    model.eval()
    return torch.cat([model(part) for part in inputs.split(EVALUATION_BATCH)])


def output_layer(model: nn.Module) -> nn.Module:
    """Return a model's output layer: the module whose parameters are declared last."""
    *_, last = (name for name, _ in model.named_parameters())
    return model.get_submodule(last.rpartition(".")[0])


def last_hidden(model: nn.Module, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n features"]:
    """Return the inputs of a model's output layer, in evaluation mode."""
    seen: list[Tensor] = []
    with output_layer(model).register_forward_pre_hook(
        lambda layer, given: seen.append(given[0].flatten(1))
    ):
        logits_of(model, inputs)
    return torch.cat(seen)


def classes_in(logits: Float[Tensor, "n classes"]) -> Int[Tensor, " n"]:
    """Return the class that a model gives each example; -1, no class, where an output is NaN.

    Argmax takes the first NaN for the largest output: a model that an attack has driven to NaN
    would call everything class 0, as many attackers want it to.
    """
    return torch.where(logits.isnan().any(dim=1), -1, logits.argmax(dim=1))


def confidences_in(
    logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Return I(x)_y, the probability that a model gives each example's label."""
    return logits.softmax(dim=1).gather(1, labels[:, None]).squeeze(1)


class _Schedule(NamedTuple):
    """Every step of a cohort, clients with more steps first."""

    order: list[int]
    """Which client stands in which row."""
    rows: Int[Tensor, "clients steps batch"]
    """Examples of each step, as rows of all shards one below the other in the order of clients;
    the first row of the client's own shard where padded."""
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
    most_steps: int | None = None,
) -> tuple[Float[Tensor, "clients d"], Float[Tensor, " clients"]]:
    """Train a cohort of clients at once from the same model.

    Each client sees the same batches in the same order as in :func:`train`; the results agree up to
    the order of float32 sums. Shards may differ in size: shorter batches are padded and masked, and
    a client that is done is left unchanged, its optimizer state included. The clients' parameters
    are one matrix, as a server needs it; every layer's are a view on it, which takes its gradient
    as it comes, without a copy. Everything happens on the device that ``start`` is on, and the host
    never waits for it.

    Args:
        model: Gives the forward pass; must work under ``torch.func.vmap`` (GroupNorm does,
            BatchNorm does not) and draw no random numbers. Its own parameters are not changed.
        start: The parameters and buffers that every client starts from.
        shards: One per client, on the same device.
        settings: The same for all.
        rngs: One per client, for its order of examples.
        hooks: One per client, None for those that are honest; none at all by default.
        most_steps: Stop after this many steps: a few show how much memory a cohort takes.

    Returns:
        The trained parameters, a row per client in the order of :func:`trainable`, and each
        client's mean loss over all examples seen.

    Raises:
        NoCohortError: If the model draws from torch's global generators, or keeps running means.
    """
    model.train()
    like = trainable(model, start)
    device = next(iter(start.values())).device
    schedule = _schedule([len(shard.labels) for shard in shards], settings, rngs)
    rows, present = schedule.rows.to(device), schedule.present.to(device)
    inputs = torch.cat([shard.inputs for shard in shards])
    labels = torch.cat([shard.labels for shard in shards])
    matrix = torch.cat([value.detach().flatten() for value in like.values()])
    matrix = matrix.repeat(len(shards), 1)
    # Copies: a model that counts its batches does so before it is refused.
    fixed = {name: value.clone() for name, value in start.items() if name not in like}

    def loss_of(parameters: State, x: Tensor, y: Tensor, present: Tensor) -> Tensor:
        logits = functional_call(model, {**parameters, **fixed}, (x,))
        # Under vmap torch's cross_entropy is these two, with Python in each, and imports sympy.
        losses = -logits.log_softmax(dim=1).gather(1, y[:, None]).squeeze(1)
        return (losses * present).sum() / present.sum()

    losses_of = vmap(loss_of, randomness="error")
    convolutions = nullcontext() if device.type == "cpu" else ConvolutionsAsProducts()
    totals = torch.zeros(len(shards), dtype=torch.float64, device=device)
    active = {name: value.requires_grad_() for name, value in parameters_in(matrix, like).items()}
    optimizer = settings.build_optimizer(list(active.values()))
    n_before = len(shards)
    for step, n_active in enumerate(schedule.n_active[:most_steps]):
        if n_active < n_before:
            active, optimizer = _narrowed(active, optimizer, n_active, settings)
            n_before = n_active
        batch, weights = rows[:n_active, step], present[:n_active, step]
        with convolutions, _each_by_itself():
            losses = losses_of(active, inputs[batch], labels[batch], weights)
        gradients = torch.autograd.grad(losses.sum(), list(active.values()))
        for parameter, gradient in zip(active.values(), gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        if hooks is not None:
            _run_hooks(hooks, schedule, parameters_in(matrix, like), step + 1)
        totals[:n_active] += (losses.detach() * weights.sum(dim=1)).double()
    means = totals / present.sum(dim=(1, 2)).double()
    if schedule.order == sorted(schedule.order):  # then no copy is needed
        return matrix, means
    back = torch.tensor(schedule.order).argsort().to(device)
    return matrix[back], means[back]


@contextmanager
def _each_by_itself() -> Iterator[None]:
    """Raise NoCohortError for what ``vmap`` tells in words alone, and keep it from telling users to
    ask torch's developers to make attention faster under it."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")
            yield
    except RuntimeError as fault:
        for words, reason in NO_COHORT.items():
            if words in str(fault):
                raise NoCohortError(f"{reason}: clients train one by one") from fault
        raise


def trainable(model: nn.Module, start: State) -> State:
    """Return the tensors of a state that the model trains, in the order of a cohort's columns."""
    return {
        name: start[name] for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def parameters_in(rows: Float[Tensor, "*clients d"], like: State) -> State:
    """Return views on a cohort's matrix, or on a row of it, as named parameters.

    Args:
        rows: Shape (clients, d), or (d,).
        like: Names and shapes, in the order of columns.
    """
    parts = rows.split([value.numel() for value in like.values()], dim=-1)
    return {
        name: part.view(*rows.shape[:-1], *value.shape)
        for (name, value), part in zip(like.items(), parts, strict=True)
    }


@torch.no_grad()
def _run_hooks(
    hooks: Sequence[StepHook | None], schedule: _Schedule, cohort: State, step: int
) -> None:
    for row in range(schedule.n_active[step - 1]):
        hook = hooks[schedule.order[row]]
        if hook is not None:
            own = {name: value[row] for name, value in cohort.items()}
            hook(own, step, step == schedule.n_steps[row])


def _schedule(
    sizes: Sequence[int], settings: LocalTraining, rngs: Sequence[np.random.Generator]
) -> _Schedule:
    steps = [batches(size, settings, rng) for size, rng in zip(sizes, rngs, strict=True)]
    order = sorted(range(len(sizes)), key=lambda i: -len(steps[i]))
    first = np.cumsum([0, *sizes[:-1]])
    width = min(settings.batch_size, max(sizes))
    rows = np.zeros((len(sizes), len(steps[order[0]]), width), dtype=np.int64)
    present = np.zeros(rows.shape, dtype=np.float32)
    for place, client in enumerate(order):
        for step, batch in enumerate(steps[client]):
            rows[place, step, : len(batch)] = batch
            present[place, step, : len(batch)] = 1
    rows += first[order][:, None, None]
    n_active = [sum(len(s) > step for s in steps) for step in range(rows.shape[1])]
    return _Schedule(
        order,
        torch.from_numpy(rows),
        torch.from_numpy(present),
        n_active,
        [len(steps[client]) for client in order],
    )


def _narrowed(
    active: State, optimizer: torch.optim.Optimizer, n_active: int, settings: LocalTraining
) -> tuple[State, torch.optim.Optimizer]:
    """Return views on the first clients' parameters, and an optimizer that goes on with them."""
    first = {name: value.detach()[:n_active].requires_grad_() for name, value in active.items()}
    narrowed = settings.build_optimizer(list(first.values()))
    for name, parameter in first.items():
        narrowed.state[parameter] = {
            key: value[:n_active] if value is not None and value.dim() else value
            for key, value in optimizer.state[active[name]].items()
        }
    return first, narrowed
