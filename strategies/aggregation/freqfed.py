"""FreqFed: cluster models by the low frequencies of their weights."""

import math

import torch

from strategies.aggregation.aggregate import Aggregate, mean_of_selected
from strategies.aggregation.distances import cosine_distances
from strategies.aggregation.hdbscan import largest_cluster
from strategies.aggregation.traits import Bound, Traits
from strategies.shapes import Float, Tensor

freqfed_bound = Bound("freqfed", 0, 2)


def check_cluster_size(n: int, min_cluster_size: int | None) -> None:
    """Raise TooFewClientsError if n clients are too few for one cluster."""
    Bound("freqfed", 0, min_cluster_size or 2)(n)


@Traits(bound=freqfed_bound, selects=True, compares_pairs=True)
def freqfed(
    updates: Float[Tensor, "n d"],
    received: Float[Tensor, " d"] | None = None,
    low_fraction: float = 0.5,
    min_cluster_size: int | None = None,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Average the largest cluster of models by the low frequencies of their weights.

    A model's weights, one after another and followed by zeros, fill the rows of the smallest square
    matrix that holds them, of side s. Of its two-dimensional discrete cosine transform, the
    coefficients (i, j) with i + j <= low_fraction · s are low; by default they are an eighth of
    all. HDBSCAN clusters clients by the cosine distance of their low coefficients.

    By default a cluster is a majority, and there is exactly one: the first group of ⌊n / 2⌋ + 1
    clients or more as clients are joined by increasing distance (single linkage). Everybody outside
    it is rejected, however honest.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        received: The model that the updates were made from, shape (d,). If given, whole models are
            transformed, as in the paper; without it, the updates themselves.
        low_fraction: Up to which share of the side i + j counts as low.
        min_cluster_size: The fewest clients in a cluster, at least 2; ⌊n / 2⌋ + 1 by default. If
            it is smaller, there may be several clusters.
        prior: Weights among those kept; equal by default.

    Returns:
        update: The mean of the largest cluster's updates.
        weights: Equal in the largest cluster, or in proportion to their prior.
        suspicion: The mean cosine distance to the largest cluster.

    Bound:
        n >= 2, else TooFewClientsError, and n >= ``min_cluster_size``: there must be somebody to
        compare with. Most clients must be honest, and lengths are not bounded: an attacker in the
        usual direction may go as far as it likes.

    Ties:
        Clients joined at exactly the same computed distance are in one cluster. Of clusters of
        equal size, that with the least distances within it is kept, then that of the lowest row.

    Variants:
        We know of no code of the authors, and could not read how they make a matrix of a whole
        model, nor HDBSCAN's settings. Of five public ports, three let a cluster be a majority, as
        FLAME and this do, one five clients, and SecretFlow's two, counting outliers as a cluster.
        One makes the matrix as here, leaving out the coefficients with i or j = s / 2; SecretFlow
        transforms the last layer's own matrix; the others transform one sequence, of all weights or
        of the last layer's, and keep the first half. Three of the ports cluster the rows of the
        distance matrix by their Euclidean distances.

    References:
        Fereidooni et al., FreqFed: A Frequency Analysis-Based Approach for Mitigating Poisoning
        Attacks in Federated Learning, NDSS 2024.
    """
    n = len(updates)
    check_cluster_size(n, min_cluster_size)
    low = _low_frequencies(updates, low_fraction)
    if received is not None:  # the transform is linear: that of a model is the sum of two
        received = _low_frequencies(received[None], low_fraction)[0]
    distances = cosine_distances(low, received)
    kept = largest_cluster(distances, min_cluster_size or n // 2 + 1)
    return mean_of_selected(updates, kept, prior, distances[:, kept].mean(dim=1))


def _low_frequencies(updates: Float[Tensor, "n d"], low_fraction: float) -> Float[Tensor, "n k"]:
    """Return each row's low coefficients, scaled so that all coefficients have the row's length."""
    n, d = updates.shape
    side = math.isqrt(d - 1) + 1
    order = torch.arange(side)
    is_low = order[:, None] + order <= int(low_fraction * side)
    low = is_low.flatten().nonzero().flatten().to(updates.device)
    turns = _turns(side).to(updates.device, updates.dtype.to_complex())
    square = updates.new_zeros(side * side)
    result = updates.new_empty(n, len(low))
    for row, coefficients in zip(updates, result, strict=True):
        square[:d] = row
        transposed = _cosine_transform(_cosine_transform(square.view(side, side), turns).T, turns)
        coefficients.copy_(transposed.flatten()[low])  # (i, j) is as low as (j, i)
    return result


def _cosine_transform(rows: Float[Tensor, "n m"], turns: Tensor) -> Float[Tensor, "n m"]:
    """Return the orthonormal discrete cosine transform (DCT-II) of each row, by one of Fourier."""
    there_and_back = torch.cat([rows[:, ::2], rows[:, 1::2].flip(1)], dim=1)
    return (torch.fft.fft(there_and_back) * turns).real


def _turns(m: int) -> Tensor:
    """Return what makes cosine coefficients of Fourier coefficients, complex, shape (m,)."""
    angles = torch.arange(m, dtype=torch.float64) * (-math.pi / (2 * m))
    lengths = torch.full_like(angles, (2 / m) ** 0.5)
    lengths[0] = (1 / m) ** 0.5
    return torch.polar(lengths, angles)
