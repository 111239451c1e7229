"""Fang's attack on Krum: as far against the honest direction as Krum will still choose."""

from typing import Literal

import torch

from clients.attacks.forged import Forged, repeated
from clients.attacks.moments import mean_and_std, offsets
from strategies.aggregation.distances import squared_distances
from strategies.aggregation.krum import krum_order
from strategies.memory import Memory
from strategies.shapes import Float, Tensor

Around = Literal["received", "first_reply"]


def fang_krum(
    own: Float[Tensor, "f d"],
    seen: Float[Tensor, "m d"],
    received: Float[Tensor, " d"],
    n_assumed: int,
    memory: Memory,
    around: Around = "received",
    threshold: float = 1e-5,
) -> Forged:
    """Send -λ s from every attacker, with s = sign(μ), and the λ at which Krum chooses it.

    λ begins at its upper bound, with n clients and c assumed malicious,
    min_i Σ_nearest ‖uₗ - uᵢ‖ / ((n - 2c - 1) √d) + maxᵢ ‖uᵢ‖ / √d, and is halved until Krum, run on
    the honest updates and the attackers' own, chooses an attacker, or λ falls below the threshold.
    Full knowledge: the attackers see all honest updates. The paper's s is the direction of the
    rule's own result without an attack, which for Krum is one client's update; here the mean stands
    in for it, as in the paper's partial knowledge and in the code of Min-Max. All send the same
    update; the paper moves the others by at most ε.

    Args:
        own: What the attackers would send, local minus global parameters.
        seen: The honest updates uᵢ, with mean μ.
        received: The global parameters.
        n_assumed: The number c of malicious clients that the server's rule assumes.
        memory: Holds the ``anchor`` of ``first_reply``.
        around: ``received`` is the paper's attack. ``first_reply`` is what FLANDERS runs under
            this name: it moves away from the model w₁ that the first honest client sent in the
            first attacked round, to w₁ - λ sign(w₁), in all rounds.
        threshold: Where halving ends.

    References:
        Fang et al., Local Model Poisoning Attacks to Byzantine-Robust Federated Learning, USENIX
        Security 2020, section 3.2.
    """
    base, direction = torch.zeros_like(received), mean_and_std(seen)[0].sign()
    if around == "first_reply":
        anchor = memory["anchor"] if "anchor" in memory else received + seen[0]
        memory = {"anchor": anchor}
        base, direction = anchor - received, anchor.sign()
    search = _Search(seen, base, direction, n_assumed, len(own), threshold)
    factor = search.halved()
    return Forged(repeated(base - factor * direction, own), memory)


def fang_krum_partial(
    own: Float[Tensor, "f d"], seen: Float[Tensor, "f d"], threshold: float = 1e-5
) -> Forged:
    """Fang's attack on Krum where attackers know only each other.

    Their own honest updates stand in for the others': they seek the λ at which Krum, run on these
    and one copy of -λ s, chooses the copy, then with two copies, and so on.

    Args:
        own: What the attackers would send, local minus global parameters.
        seen: What they would send if they were honest.
        threshold: Where halving ends and another copy is added.

    References:
        Fang et al., USENIX Security 2020, section 3.2 (partial knowledge).
    """
    direction = mean_and_std(seen)[0].sign()
    factor = threshold
    for n_copies in range(1, len(own) + 1):
        nowhere = torch.zeros_like(direction)
        search = _Search(seen, nowhere, direction, n_copies, n_copies, threshold)
        factor = search.halved()
        if search.chosen(factor):
            break
    return Forged(repeated(-factor * direction, own))


class _Search:
    """Krum among honest updates and copies of b - λ s, from distances alone."""

    def __init__(
        self,
        seen: Float[Tensor, "m d"],
        base: Float[Tensor, " d"],
        direction: Float[Tensor, " d"],
        n_assumed: int,
        n_copies: int,
        threshold: float,
    ) -> None:
        self._between = squared_distances(seen)
        self._squared, self._along = offsets(seen, base, direction)
        self._length = float(torch.linalg.vector_norm(direction.double()) ** 2)
        self._n_assumed, self._threshold = n_assumed, threshold
        self._n, root_d = len(seen) + n_copies, seen.shape[1] ** 0.5
        nearest = max(1, min(self._n - n_assumed - 2, len(seen) - 1))
        others = self._between.clone().fill_diagonal_(torch.inf).sqrt()
        sums = others.topk(nearest, largest=False).values.sum(dim=1)
        tightest = float(sums.min()) if len(seen) > 1 else 0.0
        self._largest = tightest / (max(1, self._n - 2 * n_assumed - 1) * root_d)
        self._largest += float(self._squared.max().sqrt()) / root_d

    def halved(self) -> float:
        """Return the first λ, halved from its bound, that Krum chooses; else one below the
        threshold."""
        factor = self._largest
        while factor >= self._threshold and not self.chosen(factor):
            factor /= 2
        return factor

    def chosen(self, factor: float) -> bool:
        """Whether Krum chooses one of the copies."""
        m = len(self._between)
        to_copy = self._squared + 2 * factor * self._along + factor * factor * self._length
        to_copy.clamp_(min=0)
        distances = torch.zeros(self._n, self._n, dtype=torch.float64)
        distances[:m, :m] = self._between
        distances[:m, m:] = to_copy[:, None]
        distances[m:, :m] = to_copy[None, :]
        return int(krum_order(distances, self._n_assumed, 1)[0]) >= m
