"""The mixture of vectors that is nearest to the origin, among those close to given weights."""

import torch

from strategies.aggregation.aggregate import normalised
from strategies.aggregation.blocks import one_torch_thread
from strategies.shapes import Float, Tensor

RIDGE = 1e-8  # picks, of mixtures equally near the origin (copies), that nearest to the prior
GAP, RESIDUAL = 1e-17, 1e-14  # of the optimality conditions, for vectors of length 1
MOST_STEPS = 100  # ten to twenty do
DIGITS = 9  # of the result: rounding leaves no trace of the order of rows
LEAST = 10.0**-DIGITS  # the least prior weight, and the least radius that does not count as 0


def min_norm_mixture(
    gram: Float[Tensor, "n n"], prior: Float[Tensor, " n"], radius: float
) -> Float[Tensor, " n"]:
    """Return the λ >= 0 of sum 1, within the radius of the prior in every entry, for which
    ‖Σ λᵢ vᵢ‖ is least.

    Of several such λ, the one nearest to the prior is found, by a primal-dual interior-point method
    that starts from the prior.

    Args:
        gram: ⟨vᵢ, vⱼ⟩ for all pairs of vectors of length 1 or less, shape (n, n), in float64 on the
            host.
        prior: Shape (n,), > 0, sum 1, in float64. Weights below 1e-9 are raised to that.
        radius: ε, >= 0. Less than 1e-9 counts as 0.

    References:
        Nocedal and Wright, Numerical Optimization, 2006, section 16.6.
    """
    if radius < LEAST or len(prior) == 1:
        return prior.clone()
    if prior.min() < LEAST:  # a weight of 1, beside vanishing ones, would be at its bound
        prior = normalised(prior.clamp(min=LEAST))
    with one_torch_thread():  # faster for a thousand rows: several would wait for each other
        return _by_interior_points(gram, prior, radius)


def _by_interior_points(
    gram: Float[Tensor, "n n"], prior: Float[Tensor, " n"], radius: float
) -> Float[Tensor, " n"]:
    least = (prior - radius).clamp(min=0)
    mixture, above = prior, prior - least  # how far each entry is from its bounds
    below = (prior + radius).clamp(max=1) - prior
    level = (gram @ prior).mean()  # the multiplier of the sum
    start = level.abs().clamp(min=RIDGE) * above.mean()
    low, high = start / above, start / below  # the multipliers of the bounds
    length = 1.0
    for _ in range(MOST_STEPS):
        residual = gram @ mixture + RIDGE * (mixture - prior) - level - low + high
        gaps = torch.stack([above * low, below * high])
        if gaps.max() <= GAP and residual.abs().max() <= RESIDUAL:
            break
        # Newton's step towards equal gaps, which are the smaller, the longer the last step was.
        goal = gaps.mean() * max((1 - length) ** 2, 0.01)
        right = goal / above - low - goal / below + high - residual
        factor = torch.linalg.cholesky(gram + torch.diag(RIDGE + low / above + high / below))
        sides = torch.stack([right, torch.ones_like(right)], dim=1)
        own, shared = torch.cholesky_solve(sides, factor).unbind(dim=1)
        raised = -own.sum() / shared.sum()
        moved = own + raised * shared  # of sum 0
        values = torch.stack([above, below, low, high])
        changes = torch.stack(
            [
                moved,
                -moved,
                (goal - low * moved) / above - low,
                (goal + high * moved) / below - high,
            ]
        )
        length = min(1.0, 0.995 / max((-changes / values).max().item(), 0.995))
        above, below, low, high = values + length * changes  # all stay above 0
        mixture, level = least + above, level + length * raised
    return mixture.round(decimals=DIGITS)
