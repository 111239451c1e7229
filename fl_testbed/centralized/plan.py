"""What the stages of a method have decided so far about the training to come."""

from typing import NamedTuple

import numpy as np
import torch

from fl_testbed.centralized.group_dro import GroupDRO
from fl_testbed.data import DataError
from strategies.shapes import Bool, Float, Int, Tensor


class Plan(NamedTuple):
    """Which examples are trained on, and how much."""

    weights: Float[Tensor, " n"]
    """Weight of each example in sampling, float64; 0 where it was removed."""
    dro: GroupDRO | None = None
    """Groups whose losses the training balances; None for the plain mean loss."""

    @property
    def kept(self) -> Bool[Tensor, " n"]:
        """Which examples are left."""
        return self.weights > 0

    def without(self, removed: Bool[Tensor, " n"]) -> "Plan":
        """Return the plan without some examples."""
        return self._replace(weights=torch.where(removed, 0.0, self.weights))

    def times(self, factors: Float[Tensor, " n"]) -> "Plan":
        """Return the plan with examples' weights multiplied."""
        return self._replace(weights=self.weights * factors.double())

    def chances(self) -> Float[Tensor, " n"]:
        """Return each example's chance to be drawn next; groups of a DRO are equally likely."""
        weights = self.weights
        if self.dro is not None:
            sums = torch.bincount(self.dro.groups, weights)
            weights = weights / sums[self.dro.groups].clamp_min(1e-300)
        return weights / weights.sum()

    def epoch(self, rng: np.random.Generator) -> Int[np.ndarray, " kept"]:
        """Draw an epoch's examples in order, as many as there are left.

        Equal chances make it a permutation; others draw with replacement, so that the number of
        steps does not depend on the weights.

        Raises:
            DataError: If none are left.
        """
        if not self.kept.any():
            raise DataError("the stages have removed every example: let them remove fewer")
        chances = self.chances().numpy()
        rows = np.flatnonzero(chances)
        if np.allclose(chances[rows], chances[rows[0]], rtol=1e-9, atol=0):
            return rng.permutation(rows)
        return rng.choice(len(chances), size=len(rows), p=chances)

    def shares(self) -> Float[Tensor, " n"]:
        """Return each example's share of training, 1 for a fair one.

        With GroupDRO, it is the example's chance times the weight of its group in the loss, 1 for
        an even mixture, averaged over the steps made so far.
        """
        shares = self.chances() * len(self.weights)
        if self.dro is not None:
            shares = shares * self.dro.mean_weights()[self.dro.groups] * self.dro.n_present
        return shares


def everything(n: int) -> Plan:
    """Return the plan of empirical risk minimisation: all examples, all alike."""
    return Plan(torch.ones(n, dtype=torch.float64))
