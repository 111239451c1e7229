"""What a server step says of the weights that clients had in it, from outside."""

from typing import NamedTuple

import numpy as np
import torch

from strategies.aggregation.aggregate import dot_products
from strategies.aggregation.distances import gram_in_float64
from strategies.shapes import Float, Tensor

RIDGE = 1e-12  # of the largest eigenvalue: equal updates, which nothing tells apart, share equally


class Inferred(NamedTuple):
    """The best explanation of a step as a sum of the clients' updates."""

    weights: Float[Tensor, " n"]
    """Each client's share, >= 0, sum 1; all 0 where nothing of the step is explained."""
    scale: float
    """The sum of the coefficients: 1 for an average, less where updates were clipped."""
    residual: float
    """Length of what is not explained over the length of the step: 0 for a weighted sum of the
    updates, 1 where they explain nothing of it. NaN where the server did not move."""


def inferred_weights(updates: Float[Tensor, "n d"], step: Float[Tensor, " d"]) -> Inferred:
    """Explain a server's step Δ by the updates u that came in: non-negative least squares.

    Minimises ‖Δ - Σ cᵢ uᵢ‖² over c >= 0. Where the step is a weighted sum of the updates and these
    are linearly independent, as those of d >> n parameters are, c is exact. A rule that works by
    coordinate (a median), or by a server optimiser, makes steps that are no such sum: the residual
    says how far c is from the truth, and a large one that it should not be believed.

    Args:
        updates: What the server was sent, local minus global parameters, finite.
        step: New minus old global parameters.

    References:
        Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23.
    """
    n = len(updates)
    length = step.double().norm().item()
    if n == 0 or not 0 < length < np.inf:
        return Inferred(torch.zeros(n, dtype=torch.float64), 0.0, np.nan)
    gram, pulls = gram_in_float64(updates), dot_products(updates, step)
    # ‖Δ - Uᵀc‖² in n rows instead of d: with G = UUᵀ = VΛVᵀ it is ‖Λ^½Vᵀc - Λ^-½VᵀUΔ‖² + constant.
    values, vectors = torch.linalg.eigh(gram)
    values = values + RIDGE * values[-1].clamp(min=1e-300)
    known = values > 0
    root = values[known].sqrt()
    matrix = root[:, None] * vectors[:, known].T
    target = vectors[:, known].T @ pulls / root
    from scipy.optimize import nnls  # half a second that every other command can do without

    coefficients = torch.from_numpy(nnls(matrix.numpy(), target.numpy())[0])
    total = coefficients.sum().item()
    rest = length**2 - 2 * coefficients @ pulls + coefficients @ gram @ coefficients
    residual = rest.clamp(min=0).sqrt().item() / length
    return Inferred(coefficients / total if total else coefficients, total, residual)
