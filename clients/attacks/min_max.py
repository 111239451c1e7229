"""Min-Max: as far out as the two honest updates that are farthest apart."""

import torch

from clients.attacks.forged import Forged, repeated
from clients.attacks.moments import mean_and_std, offsets
from clients.attacks.perturbation import Direction, Halving, perturbation
from strategies.aggregation.distances import squared_distances
from strategies.shapes import Float, Tensor


def min_max(
    own: Float[Tensor, "f d"],
    seen: Float[Tensor, "m d"],
    sample: Float[Tensor, "k d"],
    direction: Direction = "std",
    search: Halving | None = None,
) -> Forged:
    """Send μ + γ p with the largest γ such that maxᵢ ‖μ + γ p - uᵢ‖ <= maxᵢⱼ ‖uᵢ - uⱼ‖.

    Each squared distance is a parabola in γ, so the largest γ is the smallest of their roots and
    needs no search. Knows nothing of the defence.

    Args:
        own: What the attackers would send, local minus global parameters.
        seen: The honest updates uᵢ, among which the attackers must not stand out.
        sample: The updates whose mean μ and deviation σ are taken; the same in the paper.
        direction: p, the way from the honest mean μ: -μ / ‖μ‖ (``unit_vector``), -sign(μ)
            (``sign``), or a standard deviation, σ (``std``) or -σ (``minus_std``). The paper's code
            subtracts σ from gradients, which is ``std``; Blades subtracts it from updates and
            FLANDERS from models; FLPoison and Plato use ``unit_vector``.
        search: How a peer searches for γ, in place of the exact one: the paper's code from 10
            (steps of 5, 2.5, …), FLANDERS from 5 (1.25, 0.625, …; 6 where nothing fits).

    References:
        Shejwalkar and Houmansadr, Manipulating the Byzantine, NDSS 2021, equation 11.
    """
    mean, std = mean_and_std(sample)
    p = perturbation(direction, mean, std)
    squared, along = offsets(seen, mean, p)
    room = squared_distances(seen).max() - squared
    length = torch.linalg.vector_norm(p.double()) ** 2
    if search is not None:
        gamma = search(lambda g: bool((g * g * length - 2 * g * along < room).all()))
    elif length > 0:
        roots = (along + (along**2 + length * room).clamp(min=0).sqrt()) / length
        gamma = max(0.0, float(roots.min()))
    else:
        gamma = 0.0  # all seen are equal: there is nowhere to hide
    return Forged(repeated(mean + gamma * p, own))
