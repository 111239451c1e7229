"""Pairwise distances of updates that stay exact however unequal the updates are."""

import torch

from strategies.aggregation.aggregate import dot_products, norms_of
from strategies.aggregation.blocks import column_blocks
from strategies.shapes import Bool, Float, Int, Tensor

GRAM_BLOCK = 1_000  # columns at least, since every block adds an (n, n) matrix of products
CANCELLATION = 1e-2  # below this share of the two squared norms, a difference has lost 2 digits


def squared_distances(updates: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """Return the squared L2 distance of every pair of rows, in float64.

    One row is subtracted from all before the Gram matrix is computed, so that a part common to all
    clients costs no digits. The row is the one of median norm, never the mean: a single attacker of
    size 100 would move the mean away from honest updates of size 1e-3 and ruin their distances.
    Rows much closer to each other than to that row are grouped around one of themselves and
    measured again, until no pair is left that has lost digits. Copies have exactly the same
    distances.

    Args:
        updates: One row per client, shape (n, d), finite.
    """
    norms = norms_of(updates)
    everyone = torch.arange(len(updates), device=updates.device)
    centre = _of_median_norm(norms)
    distances, blurred = _distances_within(_gram_around(updates, everyone, centre, norms))
    while blurred.any():
        centre = int(blurred.sum(dim=1).argmax())
        group = (blurred[centre] | (everyone == centre)).nonzero().squeeze(1)
        pairs = group[:, None], group[None, :]
        closer, still_blurred = _distances_within(_gram_around(updates, group, centre, norms))
        # A pair that was exact before keeps its value: around this centre it may be less so.
        distances[pairs] = torch.where(blurred[pairs], closer, distances[pairs])
        blurred[pairs] &= still_blurred  # no pair with the centre itself is blurred
    # A product's last digits depend on its rows' positions, which would decide between copies.
    first = (distances == 0).int().argmax(dim=1)
    return distances[first[:, None], first]


def squared_distances_to(
    updates: Float[Tensor, "n d"], point: Float[Tensor, " d"]
) -> Float[Tensor, " n"]:
    """Return the squared L2 distance of every row to one point, in float64."""
    squares = torch.zeros(len(updates), dtype=torch.float64, device=updates.device)
    for columns in column_blocks(updates):
        squares += (updates[:, columns].double() - point[columns]).square_().sum(dim=1)
    return squares


def centred_gram(updates: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """Return the inner products of the rows less a row that most of them are close to, in float64.

    Rules that combine rows can work on this small matrix: with weights w that sum to 1, the squared
    distance of row i to the combination is G_ii - 2 (G w)_i + w·G w. A far row must not be the
    centre, since all others would then differ in their last digits only.

    Args:
        updates: One row per client, shape (n, d), finite.
    """
    norms = norms_of(updates)
    everyone = torch.arange(len(updates), device=updates.device)
    middle = _of_median_norm(norms)
    gram = _gram_around(updates, everyone, middle, norms)
    typical = _distances_within(gram)[0].median(dim=1).values
    centre = int(typical.argmin())
    if typical[middle] <= 4 * typical[centre]:
        return gram
    return _gram_around(updates, everyone, centre, norms)


def cosines(updates: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """Return the cosine of every pair of rows, in float64; 0 where one of them is zero."""
    norms = norms_of(updates)
    shrink = torch.where(norms > 0, 1 / norms, 0.0)[:, None]
    result = torch.zeros(len(updates), len(updates), dtype=torch.float64, device=updates.device)
    for columns in column_blocks(updates, least=GRAM_BLOCK):
        block = (updates[:, columns].double() * shrink).to(updates.dtype)
        result += _products(block)
    return ((result + result.T) / 2).clamp_(-1, 1)  # products of blocks are not quite symmetric


def cosine_distances(
    updates: Float[Tensor, "n d"], received: Float[Tensor, " d"] | None = None
) -> Float[Tensor, "n n"]:
    """Return 1 minus the cosine of every pair of rows, 0 on the diagonal, in float64.

    Args:
        updates: One row per client, shape (n, d), finite.
        received: The model that the updates were made from, shape (d,), to compare models; without
            it, the updates themselves are compared.
    """
    similarity = cosines(updates) if received is None else _model_cosines(updates, received)
    return (1 - similarity).fill_diagonal_(0)


def _model_cosines(
    updates: Float[Tensor, "n d"], received: Float[Tensor, " d"]
) -> Float[Tensor, "n n"]:
    """Return the cosine of every pair of models, which differ in the last digits alone."""
    along = dot_products(updates, received)
    square = torch.linalg.vector_norm(received.double()).square()
    products = gram_in_float64(updates) + along[:, None] + along + square
    norms = products.diagonal().clamp(min=1e-300).sqrt()
    return (products / norms[:, None] / norms).clamp_(-1, 1)


def cosines_with(
    updates: Float[Tensor, "n d"], direction: Float[Tensor, " d"], norms: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Return the cosine of every row with one vector, in float64; 0 where one of them is zero."""
    lengths = norms * torch.linalg.vector_norm(direction, dtype=torch.float64)
    return torch.where(lengths > 0, dot_products(updates, direction) / lengths, 0.0)


def gram_in_float64(
    updates: Float[Tensor, "n d"], *, centred: bool = False
) -> Float[Tensor, "n n"]:
    """Return the inner products of the rows, or of the rows less their mean, computed in float64:
    squares of huge entries are finite, and only one block of columns is held in float64 at a
    time."""
    gram = torch.zeros(len(updates), len(updates), dtype=torch.float64, device=updates.device)
    for columns in column_blocks(updates, least=GRAM_BLOCK):
        block = updates[:, columns].double()
        if centred:
            block = block - block.mean(dim=0)
        gram += _products(block)
    return gram


def _products(block: Float[Tensor, "n b"]) -> Float[Tensor, "n n"]:
    """Return the inner products of rows.

    numpy computes one half and mirrors it. With several threads torch's product is used: numpy's
    threads and torch's, which would take turns, spin while they wait and keep the cores from each
    other.
    """
    if block.device.type != "cpu" or torch.get_num_threads() > 1:
        return block @ block.T
    rows = block.numpy()
    return torch.from_numpy(rows @ rows.T)


def _of_median_norm(norms: Float[Tensor, " n"]) -> int:
    return int(norms.argsort(stable=True)[len(norms) // 2])


def _gram_around(
    updates: Float[Tensor, "n d"], rows: Int[Tensor, " m"], centre: int, norms: Float[Tensor, " n"]
) -> Float[Tensor, "m m"]:
    """Return the inner products of some rows less the centre, in float64."""
    # Powers of two bring every centred row to norm <= 1 without rounding: no square overflows.
    exponents = torch.frexp((norms[rows] + norms[centre]).clamp(min=1e-37)).exponent
    scales = torch.ldexp(torch.ones_like(norms[rows]), exponents)
    shrink = (1 / scales).to(updates.dtype)[:, None]
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=updates.device)
    whole = len(rows) == len(updates)
    for columns in column_blocks(updates, least=GRAM_BLOCK):
        block = updates[:, columns] if whole else updates[rows, columns]
        block = torch.addcmul(block * shrink, updates[centre, columns], shrink, value=-1)
        gram += _products(block)
    return gram.mul_(scales[:, None]).mul_(scales)


def _distances_within(
    gram: Float[Tensor, "m m"],
) -> tuple[Float[Tensor, "m m"], Bool[Tensor, "m m"]]:
    """Return squared distances from inner products, and which of them lost digits."""
    squares = gram.diagonal()
    sums = squares[:, None] + squares[None, :]
    distances = (sums - gram).sub_(gram.T).clamp_(min=0).fill_diagonal_(0)
    return distances, (distances < sums.mul_(CANCELLATION)).fill_diagonal_(False)
