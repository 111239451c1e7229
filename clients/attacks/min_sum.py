"""Min-Sum: as far out, over all honest updates together, as an honest one."""

from typing import Literal

import torch

from clients.attacks.forged import Forged, repeated
from clients.attacks.moments import mean_and_std
from clients.attacks.perturbation import Direction, Halving, perturbation
from strategies.aggregation.distances import squared_distances_to
from strategies.shapes import Float, Tensor


def min_sum(
    own: Float[Tensor, "f d"],
    seen: Float[Tensor, "m d"],
    direction: Direction = "std",
    bound: Literal["max", "min"] = "max",
    search: Halving | None = None,
) -> Forged:
    """Send μ + γ p with the largest γ such that Σᵢ ‖μ + γ p - uᵢ‖² <= maxⱼ Σᵢ ‖uⱼ - uᵢ‖².

    With A = Σᵢ ‖uᵢ - μ‖² the left side is A + m γ² ‖p‖², and the sum on the right for client j is
    A + m ‖uⱼ - μ‖²: so γ is ‖uⱼ - μ‖ / ‖p‖ of the honest update farthest from the mean. Knows
    nothing of the defence.

    Args:
        own: What the attackers would send, local minus global parameters.
        seen: The honest updates uᵢ, shape (m, d), with mean μ and standard deviation σ.
        direction: p, the way from the honest mean μ: -μ / ‖μ‖ (``unit_vector``), -sign(μ)
            (``sign``), or a standard deviation, σ (``std``) or -σ (``minus_std``).
        bound: ``max`` is the paper's formula, ``min`` (the honest update of *least* sum, so that
            the attackers stand out less than anybody) the paper's code.
        search: How a peer searches for γ, in place of the exact one.

    References:
        Shejwalkar and Houmansadr, Manipulating the Byzantine, NDSS 2021, equation 12.
    """
    mean, std = mean_and_std(seen)
    p = perturbation(direction, mean, std)
    squared = squared_distances_to(seen, mean)
    reach = float((squared.max() if bound == "max" else squared.min()).sqrt())
    length = float(torch.linalg.vector_norm(p.double()))
    if search is not None:
        gamma = search(lambda g: g * length < reach)
    else:
        gamma = reach / length if length > 0 else 0.0
    return Forged(repeated(mean + gamma * p, own))
