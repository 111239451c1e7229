"""Splits into training and test examples, for data that come without a split."""

import numpy as np
from numpy.random import Generator

from fl_testbed.data.dataset import DataError, Examples


def n_tested(n: int, test_fraction: float) -> int:
    """Return how many of n are for testing: at least one, and never all."""
    return min(n - 1, max(1, round(test_fraction * n)))


def split_rows(
    examples: Examples, test_fraction: float, rng: Generator
) -> tuple[Examples, Examples]:
    """Return training and test examples, drawn at random."""
    order = rng.permutation(len(examples))
    n_test = n_tested(len(examples), test_fraction)
    return examples.take(order[n_test:]), examples.take(order[:n_test])


def split_clients(
    examples: Examples, strata: np.ndarray, test_fraction: float, rng: Generator
) -> tuple[Examples, Examples]:
    """Return training and test examples of different natural clients.

    Args:
        examples: Their natural clients must be known.
        strata: The population of each example, shape (n,). Test clients are drawn separately from
            each population; a client belongs to the one of its first example.
        test_fraction: Share of each population's clients for testing: at least one, and never all.
        rng: Draws the test clients, and the order of both sets.

    Raises:
        DataError: If a population has only one client.
    """
    assert examples.clients is not None
    clients, first = np.unique(examples.clients, return_index=True)
    tested = []
    for stratum in np.unique(strata[first]):
        own = rng.permutation(clients[strata[first] == stratum])
        if len(own) < 2:
            raise DataError(
                "a population of one natural client cannot be split into training and testing"
            )
        tested.append(own[: n_tested(len(own), test_fraction)])
    is_test = np.isin(examples.clients, np.concatenate(tested))
    order = rng.permutation(len(examples))
    return examples.take(order[~is_test[order]]), examples.take(order[is_test[order]])
