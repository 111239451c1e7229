"""A little is enough (ALIE): hide inside the spread of honest updates."""

from statistics import NormalDist
from typing import Literal

from clients.attacks.forged import Forged, repeated
from clients.attacks.moments import mean_and_std
from strategies.shapes import Float, Tensor

ZRule = Literal["quantile", "cdf"]


def alie_z(n_clients: int, n_attackers: int, rule: ZRule = "quantile") -> float:
    """Return z = Φ⁻¹((n - f - s) / (n - f)) with s = ⌊n/2⌋ + 1 - f.

    s is how many honest clients must lie beyond the attackers for them to be in a majority. Where
    attackers need none (f > n/2) the share is kept half a client below 1.

    Args:
        n_clients: Clients n in the round.
        n_attackers: Attackers f among them.
        rule: ``quantile`` is the paper's. ``cdf`` uses Φ in place of Φ⁻¹, as FLANDERS does; the z
            in the code of Min-Max (0.726 for n = 50, f = 10) are such values too.
    """
    n_honest = max(1, n_clients - n_attackers)
    supporters = n_clients // 2 + 1 - n_attackers
    share = (n_honest - supporters) / n_honest
    if rule == "cdf":
        return NormalDist().cdf(share)
    margin = 0.5 / n_honest
    return NormalDist().inv_cdf(min(max(share, margin), 1 - margin))


def alie(
    own: Float[Tensor, "f d"],
    sample: Float[Tensor, "k d"],
    n_clients: int,
    n_attackers: int,
    z: float | ZRule = "quantile",
    spread: Literal["std", "root_std"] = "std",
) -> Forged:
    """Send μ + z σ from every attacker, coordinate by coordinate.

    The paper's code and epfml subtract z σ from gradients, whose sign is opposite to that of
    updates; FLPoison and Blades add it to updates.

    Args:
        own: What the attackers would send, local minus global parameters.
        sample: The updates whose mean μ and standard deviation σ are taken. The paper's attackers
            take their own; the peers take all honest ones.
        n_clients: Clients n in the round.
        n_attackers: Attackers f among them.
        z: How many deviations, or how to derive it from n and f (see :func:`alie_z`). The paper's
            experiments give it (1.5 on MNIST), and so does ByzFL (1.5). A negative z goes to the
            other side, as ByzFL, the code of Min-Max (adding to gradients) and FLANDERS do:
            parameters shrink instead of growing, which makes a difference to a minority.
        spread: ``root_std`` uses √σ in place of σ, as FLANDERS does: far larger, since σ is far
            below 1.

    References:
        Baruch et al., A Little Is Enough: Circumventing Defenses For Distributed Learning,
        NeurIPS 2019.
    """
    mean, std = mean_and_std(sample)
    if isinstance(z, str):
        z = alie_z(n_clients, n_attackers, z)
    return Forged(repeated(mean + z * (std.sqrt() if spread == "root_std" else std), own))
