"""Server optimizers: how far the server moves along a round's update, given past ones."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from strategies.memory import NO_MEMORY, Memory
from strategies.shapes import Float, Tensor


class Move(NamedTuple):
    """What the server makes of a round's combined update."""

    update: Float[Tensor, " d"]
    """What it adds to the global model, in parameter units."""
    memory: Memory = NO_MEMORY
    """State that the optimizer is given back in the next round."""


ServerOptimizer = Callable[..., Move]
"""An optimizer with its parameters bound, called with the round's combined update and the facts
that it names."""

OPTIMIZER_FACTS = frozenset({"memory", "round_"})
"""The facts that a server optimizer can name as parameters, beside the round's update."""


def sgd(
    update: Float[Tensor, " d"], memory: Memory, lr: float = 1.0, momentum: float = 0.0
) -> Move:
    """Move along the sum of all updates so far, in which older ones count for less (FedAvgM).

    Args:
        update: The round's combined update, shape (d,).
        memory: ``velocity``, that sum.
        lr: The factor on the sum.
        momentum: The share of the sum that is kept from round to round.

    Returns:
        update: lr · velocity. With lr 1 and without momentum the update itself.
        memory: The new sum.

    Bound:
        None.

    Ties:
        None can arise.

    Variants:
        The momentum is plain, as in the paper's formula and Flower's FedAvgM; the paper's
        experiments use Nesterov's, with lr 1.

    References:
        Hsu et al., Measuring the Effects of Non-Identical Data Distribution for Federated Visual
        Classification, 2019.
    """
    if momentum == 0:
        return Move(lr * update, {})
    velocity = update.double() + momentum * _recalled(memory, "velocity", update, 0.0)
    return Move((lr * velocity).to(update), {"velocity": velocity})


def adagrad(
    update: Float[Tensor, " d"],
    memory: Memory,
    lr: float,
    beta_1: float = 0.0,
    tau: float = 1e-3,
) -> Move:
    """Move a parameter the less, the larger its updates have been so far (FedAdagrad).

    Args:
        update: The round's combined update, shape (d,).
        memory: ``mean`` and ``squares``, shape (d,) each.
        lr: η, how far a parameter moves.
        beta_1: The share of the mean of updates that is kept from round to round.
        tau: τ, the adaptivity: the smaller it is, the more alike are the steps of all parameters.

    Returns:
        update: η · mean / (√squares + τ).
        memory: mean ← β₁ · mean + (1 - β₁) · update; squares ← squares + update².

    Bound:
        None.

    Ties:
        None can arise.

    Variants:
        Squares begin at τ², as in the paper; in Flower at 0.

    References:
        Reddi et al., Adaptive Federated Optimization, ICLR 2021.
    """
    return _adaptive(update, memory, lambda old, new: old + new, lr, beta_1, tau)


def adam(
    update: Float[Tensor, " d"],
    memory: Memory,
    lr: float,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    tau: float = 1e-3,
) -> Move:
    """Move a parameter the less, the larger its recent updates were (FedAdam).

    Args:
        update: The round's combined update, shape (d,).
        memory: ``mean`` and ``squares``, shape (d,) each.
        lr: η, how far a parameter moves.
        beta_1: The share of the mean of updates that is kept from round to round.
        beta_2: The share of the mean of their squares that is kept.
        tau: τ, the adaptivity: the smaller it is, the more alike are the steps of all parameters.

    Returns:
        update: η · mean / (√squares + τ).
        memory: mean ← β₁ · mean + (1 - β₁) · update; squares ← β₂ · squares + (1 - β₂) · update².

    Bound:
        None.

    Ties:
        None can arise.

    Variants:
        Squares begin at τ², and means have no bias correction, as in the paper. In Flower squares
        begin at 0, with the bias correction of Kingma and Ba's Adam.

    References:
        Reddi et al., Adaptive Federated Optimization, ICLR 2021.
    """

    def squares(old: Tensor, new: Tensor) -> Tensor:
        return beta_2 * old + (1 - beta_2) * new

    return _adaptive(update, memory, squares, lr, beta_1, tau)


def yogi(
    update: Float[Tensor, " d"],
    memory: Memory,
    lr: float,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    tau: float = 1e-3,
) -> Move:
    """Move as FedAdam does, with squares that fall more slowly after large updates (FedYogi).

    Args:
        update: The round's combined update, shape (d,).
        memory: ``mean`` and ``squares``, shape (d,) each.
        lr: η, how far a parameter moves.
        beta_1: The share of the mean of updates that is kept from round to round.
        beta_2: 1 minus the fraction of a new square by which squares move towards it.
        tau: τ, the adaptivity: the smaller it is, the more alike are the steps of all parameters.

    Returns:
        update: η · mean / (√squares + τ).
        memory: mean ← β₁ · mean + (1 - β₁) · update; squares ← squares - (1 - β₂) · update² ·
            sign(squares - update²).

    Bound:
        None.

    Ties:
        None can arise.

    Variants:
        Squares begin at τ², as in the paper; in Flower at 0.

    References:
        Reddi et al., Adaptive Federated Optimization, ICLR 2021.
    """

    def squares(old: Tensor, new: Tensor) -> Tensor:
        return old - (1 - beta_2) * new * (old - new).sign()

    return _adaptive(update, memory, squares, lr, beta_1, tau)


def _adaptive(
    update: Float[Tensor, " d"],
    memory: Memory,
    squares: Callable[[Tensor, Tensor], Tensor],
    lr: float,
    beta_1: float,
    tau: float,
) -> Move:
    """Take the step that all three share, in float64, which holds the square of any float32."""
    new = update.double()
    mean = beta_1 * _recalled(memory, "mean", update, 0.0) + (1 - beta_1) * new
    kept = squares(_recalled(memory, "squares", update, tau**2), new.square())
    return Move((lr * mean / (kept.sqrt() + tau)).to(update), {"mean": mean, "squares": kept})


def _recalled(
    memory: Memory, name: str, update: Float[Tensor, " d"], default: float
) -> Float[Tensor, " d"]:
    if name in memory:
        return memory[name].to(update.device)
    return torch.full_like(update, default, dtype=torch.float64)
