"""Geometric median (RFA): the point of least total distance to all updates."""

import torch

from strategies.aggregation.aggregate import Aggregate, normalised, prior_or_uniform, weighted_sum
from strategies.aggregation.distances import centred_gram
from strategies.aggregation.traits import Traits
from strategies.shapes import Float, Tensor


@Traits(compares_pairs=True)
def geometric_median(
    updates: Float[Tensor, "n d"],
    n_iterations: int = 100,
    smoothing: float = 1e-6,
    tolerance: float = 1e-9,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Minimise Σ prior · ‖z - update‖ by the smoothed Weiszfeld algorithm.

    Each step weights the updates by prior / max(ν, distance to the last point). All points on the
    way are combinations of updates, so the steps run on inner products alone and the updates are
    read only three times. The first point is the mean of the updates weighted by the inverse of
    their distance to one that most are close to: an attacker of size 1e30 then needs no extra steps
    to be forgotten. The paper starts from their plain mean.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        n_iterations: The most steps, which cost next to nothing. Where copies of one update lie
            just beside the median, as those of ALIE do at some z, 100 steps have ended 0.4 % of its
            length away from it.
        smoothing: ν as a share of the median distance to the starting point, so that the rule
            scales with the updates.
        tolerance: Stop when no weight changes by more.
        prior: The weights of the distances; equal by default.

    Returns:
        update: The geometric median.
        weights: Its Weiszfeld weights, scaled to sum 1.
        suspicion: The L2 distances to it, in parameter units.

    Bound:
        None is checked: the result stays near honest updates while n >= 2f + 1.

    Ties:
        Where the minimum is not unique (collinear updates, even n), the result is the point that
        the steps lead to: the mean of two updates, or of two points that have half of the prior
        each. Where at least half of the updates are one and the same point, and that is the only
        minimum, as it is with more than half of the prior, the result is exactly that point.

    Variants:
        3 steps in the paper, ByzFL and FLPoison, 4 in the authors' code and BackFed, 8 in epfml,
        100 in fedlib; ν in parameter units, 1e-6 in the paper and FLPoison, 0.1 in ByzFL and epfml;
        these three begin at 0.

    References:
        Pillutla et al., Robust Aggregation for Federated Learning, IEEE TSP 2022 (RFA).
    """
    prior = prior_or_uniform(updates, prior)
    gram = centred_gram(updates)
    distances = gram.diagonal().clamp(min=0).sqrt()
    typical = distances.median()
    if typical == 0:  # half of the updates, or more, are one and the same point
        at_point = prior * (distances == 0)
        pulls = torch.where(distances > 0, prior / distances, 0.0)
        resultant = (pulls @ gram @ pulls).clamp(min=0).sqrt()  # of the others' unit vectors
        # If the others pull as hard, all one way, the points up to the next one are medians too.
        if resultant < (1 - 1e-6) * at_point.sum():  # then this point is the only median
            weights = normalised(at_point)
            return Aggregate(weighted_sum(updates, weights), weights, distances)
        typical = distances[distances > 0].median()
    weights = normalised(prior / distances.clamp(min=typical))
    for _ in range(n_iterations):
        distances = _distances_to(gram, weights)
        last = weights
        weights = normalised(prior / distances.clamp(min=smoothing * typical))
        if (weights - last).abs().max() <= tolerance:
            break
    return Aggregate(weighted_sum(updates, weights), weights, _distances_to(gram, weights))


def _distances_to(gram: Float[Tensor, "n n"], weights: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return each row's distance to the rows' weighted mean."""
    products = gram @ weights
    squares: Tensor = gram.diagonal() - 2 * products + weights @ products
    return torch.sqrt(squares.clamp(min=0))
