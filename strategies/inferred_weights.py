"""The weights that clients had in a server step, inferred from the updates and the step alone."""

from typing import NamedTuple

import numpy as np
import torch

from strategies.aggregation.aggregate import dot_products
from strategies.aggregation.distances import gram_in_float64
from strategies.shapes import Float, Tensor

RIDGE = 1e-12  # of the largest eigenvalue: makes indistinguishable (equal) updates share equally


class Inferred(NamedTuple):
    """The best explanation of a step as a sum of the clients' updates."""

    weights: Float[Tensor, " n"]
    """Each client's share, >= 0, sum 1; all 0 where nothing of the step is explained."""
    scale: float
    """The sum of the coefficients: 1 for an average, less where updates were clipped."""
    residual: float
    """Length of the unexplained part over that of the step: 0 if the step is a weighted sum of the
    updates, 1 if they explain nothing of it. NaN where the server did not move."""


def inferred_weights(updates: Float[Tensor, "n d"], step: Float[Tensor, " d"]) -> Inferred:
    """Explain a server's step Δ by the updates u that it was sent, by non-negative least squares.

    Minimises ‖Δ - Σ cᵢ uᵢ‖² over c >= 0. Where the step is a weighted sum of the updates and these
    are linearly independent, as they are where d >> n, c is exact. A rule by coordinate (a median)
    or a server optimiser takes steps that are no such sum: the residual says how much of the step c
    leaves unexplained, and if it is large, c should not be believed.

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
    from scipy.optimize import nnls  # takes half a second, which other commands can do without

    coefficients = torch.from_numpy(nnls(matrix.numpy(), target.numpy())[0])
    total = coefficients.sum().item()
    rest = length**2 - 2 * coefficients @ pulls + coefficients @ gram @ coefficients
    residual = rest.clamp(min=0).sqrt().item() / length
    return Inferred(coefficients / total if total else coefficients, total, residual)
