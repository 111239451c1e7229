"""What any method would do if it were told the truth about clients: comparisons, not methods."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import torch

from strategies.aggregation.aggregate import Aggregate, mean_of_selected, normalised, weighted_sum
from strategies.memory import client_ids
from strategies.reweighting.lift import Lift
from strategies.shapes import Bool, Float, Int, Tensor

Lifting = Literal["standard", "ideal", "worst_case"]
Removing = Literal["standard", "ideal", "worst_case", "shielded"]


@dataclass(frozen=True)
class Oracle:
    """The truth about clients, and which decisions it corrects."""

    minority: Collection[int]
    """Ids of the honest minority's clients."""
    attackers: Collection[int]
    """Ids of the attackers; all other clients are the majority's."""
    lifting: Lifting = "standard"
    """Who is lifted: those whom the method lifts (standard), the minority alone (ideal), or
    attackers alone (worst case)."""
    removing: Removing = "standard"
    """Who is removed: those whom the rule removes (standard), attackers alone (ideal), or the
    minority alone (worst case). Shielded: the rule judges all but the minority, which is heard in
    full."""

    def corrected(self, lift: Lift, clients: Int[Tensor, " n"], prior: Float[Tensor, " n"]) -> Lift:
        """Return a lift of the true minority alone, or of attackers alone.

        If the method flags clients, all those to be lifted get its factor. Otherwise they keep the
        ratio of lifted weight to prior that the method gave them, and everybody else gets the
        majority's ratio. Where that leaves nobody any weight, all keep their prior. For a method
        that rescales updates to one length, these are the weights after rescaling.
        """
        if self.lifting == "standard":
            return lift
        minority, attackers = among(clients, self.minority), among(clients, self.attackers)
        lifted = minority if self.lifting == "ideal" else attackers
        shares = lift.weights if lift.lengths is None else lift.weights * lift.lengths
        if lift.flag_factor is not None:
            ratios = torch.where(lifted, lift.flag_factor, 1.0)
        else:
            majority = ~(minority | attackers)
            heard = prior[majority].any()
            usual = shares[majority].sum() / prior[majority].sum() if heard else 1.0
            own = torch.where(prior > 0, shares / prior, 0.0)
            ratios = torch.where(lifted, own, usual)
        weights = prior * ratios
        weights = normalised(weights) if weights.any() else prior
        if lift.lengths is None:
            return lift._replace(weights=weights)
        weights = weights / lift.lengths
        step = lift.step * shares.sum() * weights.sum()
        return lift._replace(weights=normalised(weights), step=step.item())

    def judged(
        self,
        updates: Float[Tensor, "n d"],
        clients: Int[Tensor, " n"],
        prior: Float[Tensor, " n"],
        rule: Callable[[Bool[Tensor, " n"]], Aggregate],
        scales: Float[Tensor, " n"] | None = None,
    ) -> Aggregate:
        """Return the server's aggregate of a round, with the corrections of ``removing``.

        Args:
            updates: One row per client, shape (n, d).
            clients: Their ids, shape (n,).
            prior: Their weights before the rule has its say, shape (n,), sum 1.
            rule: Applies the rule to the marked rows alone.
            scales: The factors by which a lift has multiplied the rows. They count only where the
                rule's weights are of directions: the minority's weights then refer to the updates
                before the lift.
        """
        minority, attackers = among(clients, self.minority), among(clients, self.attackers)
        if self.removing in ("ideal", "worst_case"):
            removed = attackers if self.removing == "ideal" else minority
            return mean_of_selected(updates, ~removed, prior, removed.double())
        if self.removing == "standard" or not minority.any():
            return rule(torch.ones_like(minority))
        heard = mean_of_selected(updates, minority, prior, torch.zeros_like(prior))
        share = prior[minority].sum()
        rest = rule(~minority)
        multiplied = rest.weights if rest.multipliers is None else rest.multipliers
        multipliers, suspicion = share * heard.weights, torch.full_like(prior, torch.nan)
        by = scales if rest.of_directions and scales is not None else torch.ones_like(multipliers)
        weights = multipliers * by
        # Rows that the rule shrinks count for less beside the minority's.
        total = (multiplied * by[~minority]).sum()
        weights[~minority] = (1 - share) * total * rest.weights.to(weights)
        multipliers[~minority] = (1 - share) * multiplied.to(weights)
        suspicion[~minority] = rest.suspicion.to(suspicion)
        pair = torch.stack([heard.update, rest.update])
        update = weighted_sum(pair, torch.stack([share, 1 - share]))
        unknown = rest.pulls is not None and rest.pulls.isnan().any()
        pulls = torch.full_like(weights, torch.nan) if unknown else None
        told = {"suspicion": suspicion, "multipliers": multipliers, "pulls": pulls}
        return rest._replace(update=update, weights=normalised(weights), **told)


def among(clients: Int[Tensor, " n"], ids: Collection[int]) -> Bool[Tensor, " n"]:
    """Mark the clients with one of the ids."""
    return torch.isin(clients, client_ids(ids).to(clients.device))
