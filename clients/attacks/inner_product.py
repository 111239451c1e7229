"""Inner-product manipulation (IPM): pull against the honest mean."""

from clients.attacks.forged import Forged, repeated
from clients.attacks.moments import mean_and_std
from strategies.shapes import Float, Tensor


def inner_product(own: Float[Tensor, "f d"], sample: Float[Tensor, "k d"], scale: float) -> Forged:
    """Send -ε μ from every attacker, so that the aggregate and the honest mean disagree in sign.

    Args:
        own: What the attackers would send, local minus global parameters.
        sample: The updates whose mean μ is taken.
        scale: The factor ε. With f of n clients the mean changes sign if ε > (n - f) / f; a small ε
            (0.1) stays close to the honest and is meant for robust rules. Peers use 0.1, 0.2, 0.5,
            1, 2 and 100.

    References:
        Xie et al., Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation,
        UAI 2019.
    """
    mean, _ = mean_and_std(sample)
    return Forged(repeated(-scale * mean, own))
