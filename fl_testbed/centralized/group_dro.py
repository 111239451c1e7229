"""GroupDRO: minimise a mixture of the groups' losses that leans to the worst of them."""

import torch

from strategies.reweighting import exponentiated_gradient
from strategies.shapes import Float, Int, Tensor


class GroupDRO:
    """The mixture q over groups, which moves with every batch.

    q_g ← q_g exp(η ℓ_g), normalised; the batch's loss is Σ q_g ℓ_g, where ℓ_g is the group's mean
    loss in the batch plus C / √n_g.

    Args:
        groups: Group of each training example, numbered from 0.
        step_size: η.
        adjustment: C, which counts small groups as harder than they look.

    References:
        Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, ICLR 2020.
    """

    def __init__(
        self, groups: Int[Tensor, " n"], step_size: float = 0.01, adjustment: float = 0.0
    ) -> None:
        self.groups = groups
        self.step_size, self.adjustment = step_size, adjustment
        self.n_groups = int(groups.max()) + 1
        self.start(torch.ones(len(groups), dtype=torch.float64))

    @property
    def n_present(self) -> int:
        """How many groups have examples."""
        return int((self.sizes > 0).sum())

    def start(self, weights: Float[Tensor, " n"]) -> None:
        """Begin a training on the examples with positive weight; all groups start out equal."""
        self.sizes = torch.bincount(self.groups, (weights > 0).float())
        self._mixture = (self.sizes > 0) / (self.sizes > 0).sum()
        self._sum, self._steps = torch.zeros(self.n_groups), 0

    def loss(
        self, losses: Float[Tensor, " batch"], rows: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """Return the batch's loss and move the mixture.

        Args:
            losses: Loss of each example in the batch.
            rows: Which examples of the training set they are.
        """
        groups = self.groups[rows]
        counts = torch.bincount(groups, minlength=self.n_groups)
        sums = torch.zeros(self.n_groups).index_add(0, groups, losses)
        means = sums / counts.clamp_min(1) + self.adjustment / self.sizes.clamp_min(1).sqrt()
        self._mixture = exponentiated_gradient(self._mixture, means.detach(), self.step_size)
        self._sum, self._steps = self._sum + self._mixture, self._steps + 1
        return self._mixture @ means

    def mean_weights(self) -> Float[Tensor, " groups"]:
        """Return the mixture's mean over the steps made."""
        if not self._steps:
            return self._mixture.double()
        return (self._sum / self._steps).double()
