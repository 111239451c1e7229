"""Minority-mimic: a poison that stands where honest minority clients stand; this project's own."""

from typing import Literal

import torch

from clients.attacks.forged import Forged
from clients.attacks.moments import mean_and_std
from strategies.aggregation.distances import squared_distances_to
from strategies.shapes import Bool, Float, Tensor

Within = Literal["ball", "box"]


def minority_mimic(
    own: Float[Tensor, "f d"],
    clean: Float[Tensor, "f d"],
    seen: Float[Tensor, "m d"],
    is_minority: Bool[Tensor, " m"],
    closeness: float = 1.0,
    within: Within = "ball",
) -> Forged:
    """Send uᵢ' = m + pᵢ': the mean of the minority's updates plus the poison's part, cut to the
    size by which minority clients differ from each other.

    The poison's part pᵢ = uᵢ - cᵢ is the difference between training on poisoned and on clean data.
    In a ``ball``, pᵢ' = pᵢ c R / ‖pᵢ‖, with R the mean distance of a minority client to the mean of
    the *other* ones: by its distance to the minority an attacker then looks like one of them, and
    the poison is as large as that allows (it may be boosted). In a ``box``, pᵢ' is pᵢ cut to ± c σ,
    σ each coordinate's deviation among the minority, for rules that work by coordinate. A rule that
    drops attackers of closeness <= 1 for their position then has to drop minority clients too.

    Args:
        own: What the attackers would send, local minus global parameters, trained on poison.
        clean: What they would send had they trained on clean data.
        seen: The updates that the attackers see: all honest ones (omniscient), or ``clean``
            (colluding), which is a good picture of the minority if they hold such data.
        is_minority: Which of these are the minority's; if none is, all count as such.
        closeness: The factor c: below 1 closer to the minority's mean than its own members.
        within: What the poison's part is cut to.
    """
    crowd = seen[is_minority] if is_minority.any() else seen
    mean, std = mean_and_std(crowd)
    poison = own - clean
    if within == "box":
        edge = closeness * std
        return Forged(mean + poison.clamp_(-edge, edge))
    if len(crowd) < 2:  # one client shows no spread: keep the poison as it is
        return Forged(mean + closeness * poison)
    # u - mean of the others = (u - mean of all) k / (k - 1)
    radius = squared_distances_to(crowd, mean).sqrt().mean() * len(crowd) / (len(crowd) - 1)
    norms = torch.linalg.vector_norm(poison.double(), dim=1, keepdim=True).clamp(min=1e-30)
    return Forged(mean + poison * (closeness * radius / norms).to(poison))
