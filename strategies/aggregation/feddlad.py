"""FedDLAD: trust the most connected models, flip unusual values, pardon some of the others."""

from collections.abc import Iterator

import numpy as np
import torch

from strategies.aggregation.aggregate import (
    Aggregate,
    normalised,
    norms_of,
    prior_or_uniform,
    shared_by_copies,
    sorted_rows,
)
from strategies.aggregation.blocks import column_blocks
from strategies.aggregation.distances import cosine_distances
from strategies.aggregation.krum import lowest
from strategies.aggregation.norm_clipping import clipping_factors, median_of
from strategies.aggregation.traits import Bound, Traits
from strategies.shapes import Float, Tensor

ROUNDING = 1e-14  # by which cosines of equal models may differ from 1

feddlad_bound = Bound("feddlad", 0, 2)


@Traits(bound=feddlad_bound, selects=True, compares_pairs=True)
def feddlad(
    updates: Float[Tensor, "n d"],
    received: Float[Tensor, " d"],
    trusted_fraction: float = 0.48,
    pardoned_fraction: float = 0.12,
    iqr_factor: float = 0.6,
    n_neighbours: int = 24,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Average the most connected half and those most like it, with unusual coordinates flipped.

    A client is described by the cosine distances of its model to all models. Those of the lowest
    connectivity-based outlier factor (COF) are trusted. All updates are clipped to the median norm
    of the trusted; then every value outside [q₁ - c · iqr, q₃ + c · iqr], by the quartiles of its
    coordinate over all clients, changes its sign. Of the others, those whose changed update has the
    largest cosine with the mean of the trusted are pardoned, if it is positive. Where the middle
    half of the values are equal, such as 0 in a unit that few clients use, all others are flipped.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        received: The model that the updates were made from, shape (d,).
        trusted_fraction: The share of the clients that are trusted, rounded, at least one.
        pardoned_fraction: The share of the clients that are pardoned, rounded.
        iqr_factor: c, how many interquartile ranges beyond the quartiles are usual.
        n_neighbours: Neighbours that the outlier factor looks at; all others where there are fewer.
        prior: Weights among the trusted, and times the cosine among the pardoned; equal by default.

    Returns:
        update: The means of the trusted and of the pardoned, in proportion to their numbers.
        weights: Each client's share in that mean · its clipping factor, scaled to sum 1, whether
            its values are flipped or not; all 0 where nobody trusted has a prior.
        suspicion: The outlier factor.

    Bound:
        n >= 2, else TooFewClientsError: there must be somebody to compare with. The majority must
        be honest; whoever is heard is no longer than the median of the trusted.

    Ties:
        Of equal factors the lowest rows are trusted, of equal cosines the lowest are pardoned;
        copies share weight and suspicion. A value exactly at a limit is not flipped.

    Variants:
        The authors trust 12 and pardon 3 of 25 clients: the fractions here. Their code and BackFed
        weight the trusted, but not the pardoned, by their examples. BackFed also takes half of the
        step, and for an even number of trusted clients clips to the lower of the two middle norms,
        where the authors' code and this take their mean.

    References:
        Ding et al., FedDLAD: A Federated Learning Dual-Layer Anomaly Detection Framework for
        Enhancing Resilience Against Backdoor Attacks, IJCAI 2025.
        Tang et al., Enhancing Effectiveness of Outlier Detections for Low Density Patterns, PAKDD
        2002 (COF).
    """
    n = len(updates)
    feddlad_bound(n)
    distances = cosine_distances(updates, received)
    distances = torch.where(distances > ROUNDING, distances, 0.0)
    factors = torch.from_numpy(_outlier_factors(distances.cpu().numpy(), min(n_neighbours, n - 1)))
    factors = factors.to(updates.device)
    trusted = lowest(factors, max(1, round(trusted_fraction * n)))
    norms = norms_of(updates)
    clipping = clipping_factors(norms, median_of(norms[trusted]))
    flipped = _Flipped(updates, clipping, iqr_factor)

    prior = prior_or_uniform(updates, prior)
    own = normalised(prior * trusted)
    along = flipped.products_with_sum(own)
    length = (own @ along).sqrt()  # of the mean of the trusted
    cosines = torch.where(norms * length > 0, along / (norms * clipping * length), 0.0)
    alike = torch.where(trusted, 0.0, cosines.clamp(min=0))
    pardoned = lowest(-alike, round(pardoned_fraction * n)) & (alike > 0)
    others = normalised(prior * alike * pardoned)
    heard = (trusted.sum() * own + pardoned.sum() * others) / (trusted | pardoned).sum()
    update, pulls = flipped.sum(heard)
    result = Aggregate(update, normalised(heard * clipping), factors, pulls=pulls)
    return shared_by_copies(result, updates, prior)


def _outlier_factors(points: Float[np.ndarray, "n m"], k: int) -> Float[np.ndarray, " n"]:
    """Return each point's average chaining distance over the mean of its k nearest neighbours'.

    The chain of a point visits its neighbours from the nearest to the farthest. A step is as long
    as the distance to the nearest of those before, and earlier steps weigh more.
    """
    from scipy.spatial.distance import cdist  # here, since a bare machine with torch may lack it

    apart = cdist(points, points)
    nearest = apart.argsort(axis=1, kind="stable")[:, : k + 1]  # the point itself is the first
    steps = np.arange(k, 0, -1) * 2 / (k * (k + 1))
    chains = np.empty(len(points))
    for i, path in enumerate(nearest):
        between = apart[np.ix_(path, path)]
        chains[i] = steps @ [between[j, :j].min() for j in range(1, k + 1)]
    usual = chains[nearest[:, 1:]].mean(axis=1)
    return chains / np.maximum(usual, 1e-300)


class _Flipped:
    """The clipped rows with unusual values flipped, of which only one block exists at a time."""

    def __init__(
        self, updates: Float[Tensor, "n d"], clipping: Float[Tensor, " n"], iqr_factor: float
    ) -> None:
        self.updates, self.clipping, self.iqr_factor = updates, clipping, iqr_factor

    def _blocks(self) -> Iterator[tuple[slice, Float[Tensor, "n b"]]]:
        for columns in column_blocks(self.updates):
            block = self.updates[:, columns].double() * self.clipping[:, None]
            ordered = sorted_rows(block.T.contiguous())
            first, third = (_quantile(ordered, share)[None] for share in (0.25, 0.75))
            margin = self.iqr_factor * (third - first)
            unusual = (block < first - margin) | (block > third + margin)
            yield columns, torch.where(unusual, -block, block)

    def products_with_sum(self, weights: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return each row's inner product with the weighted sum of all."""
        products = torch.zeros_like(weights)
        for _, block in self._blocks():
            products += block @ (weights @ block)
        return products

    def sum(self, weights: Float[Tensor, " n"]) -> tuple[Float[Tensor, " d"], Float[Tensor, " n"]]:
        """Return the weighted sum, and the inner product with it of each row's part."""
        total, pulls = torch.empty_like(self.updates[0]), torch.zeros_like(weights)
        for columns, block in self._blocks():
            summed = weights @ block
            total[columns] = summed.to(total)
            pulls += weights * (block @ summed)
        return total, pulls


def _quantile(ordered: Float[Tensor, "columns n"], share: float) -> Float[Tensor, " columns"]:
    """Return a quantile of each sorted row, interpolated between two values."""
    at = share * (ordered.shape[1] - 1)
    below = int(at)
    above = min(below + 1, ordered.shape[1] - 1)
    return torch.lerp(ordered[:, below], ordered[:, above], at - below)
