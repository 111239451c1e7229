"""Bucketing: average clients in small random groups before a rule judges."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from strategies.aggregation.aggregate import prior_or_uniform
from strategies.pre_aggregation.mixed import Mixed, mixed_rows
from strategies.shapes import Float, Tensor


def n_buckets(n: int, size: int) -> int:
    """Return ⌈n / s⌉, the number of rows that a rule after bucketing sees."""
    return math.ceil(n / size)


def bucketing(
    updates: Float[Tensor, "n d"],
    rng: np.random.Generator,
    size: int = 2,
    prior: Float[Tensor, " n"] | None = None,
) -> Mixed:
    """Average the clients of random buckets of size s; the last bucket may be smaller.

    Averages differ less from each other than clients do, so a rule that follows is less inclined to
    take an unusual honest client for an attacker. f attackers can spoil f buckets: the rule keeps
    its assumed f, and its bound is checked against ⌈n / s⌉ rows.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        rng: Draws the buckets.
        size: The bucket size s, >= 1.
        prior: Weights within a bucket; equal by default.

    Returns:
        updates: The buckets' means, ⌈n / s⌉ rows.
        mixing: Each client's share in its bucket. A bucket whose clients all have prior 0 is their
            plain mean.

    Bound:
        None.

    Ties:
        None can arise.

    Variants:
        The authors, FLPoison, FedML and epfml take s = 2, ByzFL 1 (off) by default.

    References:
        Karimireddy et al., Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing, ICLR
        2022.
    """
    n = len(updates)
    bucket = torch.empty(n, dtype=torch.int64)
    bucket[torch.from_numpy(rng.permutation(n))] = torch.arange(n) // size
    members = F.one_hot(bucket, n_buckets(n, size)).T.to(updates.device)
    shares = members * prior_or_uniform(updates, prior)
    shares = torch.where(shares.sum(dim=1, keepdim=True) > 0, shares, members)
    mixing = shares / shares.sum(dim=1, keepdim=True)
    return Mixed(mixed_rows(updates, mixing), mixing)
