"""Sign flip: send the opposite of what was learnt."""

from clients.attacks.forged import Forged
from strategies.shapes import Float, Tensor


def sign_flip(own: Float[Tensor, "f d"], scale: float = 1.0) -> Forged:
    """Send uᵢ' = -s uᵢ. Blind.

    Args:
        own: What the attackers would send, local minus global parameters.
        scale: The factor s, > 0. With f of n clients the mean moves backwards if s > (n - f) / f.

    References:
        Li et al., RSA: Byzantine-Robust Stochastic Aggregation Methods, AAAI 2019, whose workers
        send models. FLPoison flips an attacker's update, as here; Blades every gradient while it
        trains; ByzFL the honest mean (``inner_product`` of scale 1).
    """
    return Forged(-scale * own)
