"""How evenly a model serves clients, each judged on test examples in the mix that it holds."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WORST_SHARE = 0.1


class ClientSpread(NamedTuple):
    """How accuracy spreads over clients; NaN where no client is judged."""

    variance: float
    """Population variance of the clients' accuracies, in squared fractions."""
    worst: float
    """Mean accuracy of the worst tenth of clients (at least one)."""


def client_accuracies(
    correct: np.ndarray,
    cells: np.ndarray,
    holdings: np.ndarray,
    own: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Return the accuracy that each client can expect on new examples of the kinds it holds.

    A cell is a kind of example: one group and class. A client's accuracy is the mean over cells
    of the accuracy on the cell's test examples, weighted by how many of its own examples are of
    the cell. So no client's data have to be held out, and small shards do not make figures noisy,
    but differences between clients within a cell are not seen. A client that has test examples of
    its own is judged on these alone.

    Args:
        correct: Whether each test example was classified rightly, shape (n,).
        cells: The cell of each test example, shape (n,).
        holdings: Examples of each cell that each client holds, shape (clients, cells). Cells
            without test examples are left out.
        own: Each client's own test examples, as indices into ``correct``; none by default.

    Returns:
        Shape (clients,); NaN for a client none of whose cells has test examples.
    """
    n_cells = holdings.shape[1]
    tested = np.bincount(cells, minlength=n_cells)
    hits = np.bincount(cells, weights=correct, minlength=n_cells)
    known = tested > 0
    held = holdings[:, known]
    total = held.sum(axis=1)
    expected = held @ (hits[known] / tested[known])
    found = np.divide(expected, total, out=np.full(len(held), math.nan), where=total > 0)
    for client, rows in enumerate(own):
        if len(rows):
            found[client] = correct[rows].mean()
    return found


def spread(accuracies: np.ndarray) -> ClientSpread:
    """Return the variance over clients and the mean of the worst tenth, rounded up.

    References:
        Li et al., Fair Resource Allocation in Federated Learning, ICLR 2020, reports both.
    """
    known = np.sort(accuracies[~np.isnan(accuracies)])
    if not len(known):
        return ClientSpread(math.nan, math.nan)
    n_worst = math.ceil(WORST_SHARE * len(known))
    return ClientSpread(float(known.var()), float(known[:n_worst].mean()))
