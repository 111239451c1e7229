"""Attack tailored to a known defence: the factor that moves its result farthest."""

from collections.abc import Callable

import torch

from clients.attacks.forged import Defence, Forged, repeated
from clients.attacks.moments import mean_and_std
from clients.attacks.perturbation import Direction, perturbation
from strategies.aggregation.distances import squared_distances_to
from strategies.shapes import Float, Tensor

SMALLEST_HALVINGS = 5  # a rule may drop all but updates much closer than the honest are


def tailored(
    own: Float[Tensor, "f d"],
    seen: Float[Tensor, "m d"],
    defence: Defence,
    direction: Direction = "std",
    n_evaluations: int = 20,
) -> Forged:
    """Send μ + γ p with the γ that maximises ‖A(γ) - μ‖, where A(γ) is the update that the server
    would make. Knows the defence.

    ``std`` is ALIE with the best z > 0, ``unit_vector`` inner-product manipulation with the best ε.
    γ begins where ‖γ p‖ is the root mean squared distance of an honest update to μ.

    Args:
        own: What the attackers would send, local minus global parameters.
        seen: The honest updates, with mean μ and standard deviation σ.
        defence: Gives the server's update if every attacker sent the given one.
        direction: p, the way from the honest mean μ: -μ / ‖μ‖ (``unit_vector``), -sign(μ)
            (``sign``), or a standard deviation, σ (``std``) or -σ (``minus_std``).
        n_evaluations: How often the defence is evaluated; 20 times in ByzFL. The search climbs from
            one factor, and may end on the lower of two peaks: against CAF, in one round of 16 at a
            third of the largest effect.

    References:
        Shejwalkar and Houmansadr, Manipulating the Byzantine, NDSS 2021, section IV-C (their
        closed forms per rule are replaced by the search); ByzFL's optimal ALIE and IPM.
    """
    mean, std = mean_and_std(seen)
    p = perturbation(direction, mean, std)
    length = float(torch.linalg.vector_norm(p.double()))
    typical = float(squared_distances_to(seen, mean).mean().sqrt())
    if length == 0 or typical == 0:
        return Forged(repeated(mean, own))

    def effect(gamma: float) -> float:
        moved = defence(mean + gamma * p).double() - mean.double()
        return float(torch.linalg.vector_norm(moved))

    gamma = most_effective(effect, typical / length, n_evaluations)
    return Forged(repeated(mean + gamma * p, own))


def most_effective(effect: Callable[[float], float], start: float, n_evaluations: int) -> float:
    """Return the best factor found: doubled while that helps, or halved a few times if it does not,
    then refined by steps of half the size each time."""
    best, largest = start, effect(start)
    left = n_evaluations - 1

    def better(candidate: float) -> bool:
        nonlocal best, largest, left
        left -= 1
        value = effect(candidate)
        if value > largest:
            best, largest = candidate, value
            return True
        return False

    while left > 0 and better(2 * best):
        pass
    for halvings in range(1, SMALLEST_HALVINGS + 1):
        if best <= start and left > 0:
            better(start / 2**halvings)
    step = best / 2
    while left > 0:
        if not better(best + step) and left > 0:
            better(best - step)
        step /= 2
    return best
