"""LASA: keep each update's largest values, and judge it anew in every layer."""

from collections.abc import Iterator, Mapping

import torch

from strategies.aggregation.aggregate import (
    Aggregate,
    kth_largest,
    normalised,
    norms_of,
    prior_or_uniform,
)
from strategies.aggregation.blocks import column_blocks, each_block, row_blocks
from strategies.aggregation.mz_scores import BORDER, mz_scores
from strategies.aggregation.norm_clipping import clipping_factors
from strategies.aggregation.traits import Traits
from strategies.shapes import Float, Tensor


@Traits(selects=True)
def lasa(
    updates: Float[Tensor, "n d"],
    layers: Mapping[str, slice],
    norm_radius: float = 1.0,
    sign_radius: float = 1.0,
    top_fraction: float = 0.7,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Average, in each layer, the clipped and sparsified updates that are usual there.

    Every update is clipped to the median norm, and all but its largest values are set to 0. A layer
    is one array of parameters: weights and bias are two. In each, a client has a norm and a sign
    purity, the share of positive values among those that are not 0. It is judged by |measure -
    median|, in standard deviations over all clients, and heard in the layer if it is within both
    radii; where nobody is, everybody is heard. Both sides count as unusual: where clients differ by
    chance alone, more than half of them are dropped from each layer.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        layers: Where each array of parameters stands in a row, by its name.
        norm_radius: λ_n, how many standard deviations from the median norm are allowed.
        sign_radius: λ_s, how many from the median sign purity are allowed.
        top_fraction: The share of all coordinates, those of largest magnitude, that an update
            keeps: 1 minus the paper's sparsification level.
        prior: Weights among those heard in a layer; equal by default.

    Returns:
        update: In each layer the mean of those heard, in proportion to their prior; 0 where all of
            them have prior 0.
        weights: prior · clipping factor, scaled to sum 1 over those heard in a layer, and averaged
            over coordinates.
        suspicion: The larger of the two distances to the median, in radii, averaged over
            coordinates.

    Bound:
        None is checked: the median norm, which clips everybody, is honest while n >= 2f + 1.

    Ties:
        A client exactly at a radius is heard: of two clients, both are. Values that tie for the
        last place among the largest are all kept. A layer without a value other than 0 has sign
        purity 1/2. For an even number of clients, the median norm that clips is the lower of the
        two middle ones.

    Variants:
        Radii of 1 and a fraction of 0.7 are the defaults of the authors' code; FLPoison's
        ``norm_radius`` is 2 except on CIFAR. The authors' code sparsifies only arrays of two or
        four dimensions, so that biases stay whole, and keeps one value fewer. It drops clients
        exactly at a radius, and in a layer where all are alike in one measure it hears everybody,
        whatever the other measure says. FLPoison judges sparsified updates that are not clipped,
        and averages clipped ones that are not sparsified, as FL-Byzantine-Library does.

    References:
        Xu et al., Achieving Byzantine-Resilient Federated Learning via Layer-Adaptive Sparsified
        Model Aggregation, WACV 2025.
    """
    d = updates.shape[1]
    norms = norms_of(updates)
    factors = clipping_factors(norms, norms.median())
    sparse = _Sparse(updates, factors, max(1, round(top_fraction * d)))
    prior = prior_or_uniform(updates, prior)
    update = torch.zeros_like(updates[0])
    weights, suspicion, pulls = prior.new_zeros(3, len(prior))
    for layer in layers.values():
        share = (layer.stop - layer.start) / d
        lengths, purities = sparse.measures(layer)
        unusual = torch.maximum(
            mz_scores(lengths / lengths.max().clamp(min=1e-300)) / norm_radius,
            mz_scores(purities) / sign_radius,
        )
        heard = unusual <= 1 + BORDER
        own = normalised(prior * (heard | ~heard.any()))
        for columns, block in sparse.blocks(layer):
            mean = own @ block
            update[columns] = mean.to(update)
            pulls += own * (block @ mean)
        weights += share * normalised(own * factors)
        suspicion += share * unusual
    return Aggregate(update, weights, suspicion, pulls=pulls)


class _Sparse:
    """The largest values of each row, clipped, of which only one block exists at a time."""

    def __init__(
        self, updates: Float[Tensor, "n d"], factors: Float[Tensor, " n"], n_kept: int
    ) -> None:
        self.updates, self.factors = updates, factors
        self.least = torch.empty_like(updates[:, 0])

        def look_at(rows: slice, scratch: None) -> None:
            self.least[rows] = kth_largest(updates[rows].abs(), n_kept)

        each_block(row_blocks(updates), look_at, lambda: None, updates.device.type == "cpu")

    def blocks(self, layer: slice) -> Iterator[tuple[slice, Float[Tensor, "n b"]]]:
        """Yield a layer's columns, some at a time, with their values in float64."""
        for within in column_blocks(self.updates[:, layer]):
            columns = slice(layer.start + within.start, layer.start + within.stop)
            block = self.updates[:, columns]
            kept = torch.where(block.abs() >= self.least[:, None], block, 0)
            yield columns, kept.double() * self.factors[:, None]

    def measures(self, layer: slice) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return each row's norm and sign purity in a layer."""
        squares, signs, counts = self.factors.new_zeros(3, len(self.factors))
        for _, block in self.blocks(layer):
            squares += block.square().sum(dim=1)
            signs += block.sign().sum(dim=1)
            counts += block.count_nonzero(dim=1)
        return squares.sqrt(), (1 + signs / counts.clamp(min=1)) / 2
