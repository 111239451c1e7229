"""Subpopulation attack: find a cluster of like examples and flip its label."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from clients.poisons.choosing import changed
from clients.shard import Shard
from strategies.shapes import Float, Int, Tensor

LLOYD_STEPS = 100


class Subpopulations(NamedTuple):
    """Clusters in feature space, as fitted on an attacker's own examples."""

    mean: Float[Tensor, " features"]
    axes: Float[Tensor, "features axes"]
    """The principal axes that distances are measured along."""
    centres: Float[Tensor, "clusters axes"]

    def of(self, features: Float[Tensor, "n features"]) -> Int[Tensor, " n"]:
        """Return the nearest cluster of each example."""
        return torch.cdist((features - self.mean) @ self.axes, self.centres).argmin(dim=1)


def check_cluster_count(n_examples: int, n_clusters: int) -> None:
    """Raise ValueError if there are fewer examples than clusters."""
    if n_examples < n_clusters:
        raise ValueError(
            f"{n_clusters} clusters need at least as many examples, but the attackers have "
            f"{n_examples}: lower poison.n_clusters or give attackers more data"
        )


def find_subpopulations(
    features: Float[Tensor, "n features"],
    n_clusters: int,
    rng: np.random.Generator,
    n_axes: int = 10,
) -> Subpopulations:
    """Cluster examples by k-means along the principal axes of their features.

    Args:
        features: Of the attacker's examples: a model's last hidden layer, or pixels.
        n_clusters: How many (100 in the paper, for 12,500 examples and more).
        rng: Draws k-means++'s first centres.
        n_axes: Principal axes kept (10 in the release).

    Raises:
        ValueError: If there are fewer examples than clusters.
    """
    check_cluster_count(len(features), n_clusters)
    mean = features.mean(dim=0)
    _, _, axes = torch.linalg.svd(features - mean, full_matrices=False)
    points = (features - mean) @ axes[:n_axes].T
    centres = _spread_centres(points, n_clusters, rng)
    nearest = torch.full((len(points),), -1)
    for _ in range(LLOYD_STEPS):
        before, nearest = nearest, torch.cdist(points, centres).argmin(dim=1)
        if torch.equal(before, nearest):
            break
        for cluster in nearest.unique():  # an empty cluster stays where it is
            centres[cluster] = points[nearest == cluster].mean(dim=0)
    return Subpopulations(mean, axes[:n_axes].T, centres)


def _spread_centres(
    points: Float[Tensor, "n axes"], n_clusters: int, rng: np.random.Generator
) -> Float[Tensor, "clusters axes"]:
    """Draw first centres far from each other: k-means++."""
    picks = [int(rng.integers(len(points)))]
    gaps = torch.full((len(points),), torch.inf, dtype=torch.float64)
    for _ in range(n_clusters - 1):
        newest = (points - points[picks[-1]]).pow(2).sum(dim=1).double()
        gaps = torch.minimum(gaps, newest)
        total = gaps.sum()
        chances = (gaps / total if total > 0 else torch.ones_like(gaps) / len(gaps)).numpy()
        picks.append(int(rng.choice(len(points), p=chances)))
    return points[picks].clone()


def pick_by_size(
    clusters: Int[Tensor, " n"], size: Literal["largest", "median", "smallest"]
) -> int:
    """Return the cluster of that size among those that hold anybody; ties go to the lowest."""
    counts = torch.bincount(clusters)
    held = counts.nonzero().squeeze(1)
    by_size = held[counts[held].argsort(descending=True, stable=True)]
    return int(by_size[{"largest": 0, "median": len(by_size) // 2, "smallest": -1}[size]])


@torch.no_grad()
def wrong_class(
    model: nn.Module,
    members: Float[Tensor, "n ..."],
    choice: Literal["least_likely", "runner_up"],
) -> int:
    """Return a class to label a subpopulation with, by the probability that a model gives it.

    Args:
        model: The attacker's own.
        members: The subpopulation's examples.
        choice: ``least_likely`` has the largest loss, and the release labels so (on two classes);
            ``runner_up`` comes second, and takes fewer poisons to win.
    """
    model.eval()
    order = model(members).softmax(dim=1).sum(dim=0).argsort(descending=True)
    return int(order[{"least_likely": -1, "runner_up": 1}[choice]])


def subpopulation_attack(
    shard: Shard,
    members: Float[Tensor, "members ..."],
    target: int,
    fraction: float,
    rng: np.random.Generator,
) -> Shard:
    """Replace a share of a shard by members of a subpopulation, labelled as the target.

    Args:
        shard: The attacker's clean shard.
        members: The attackers' examples of the subpopulation, none of class ``target``.
        target: What they are labelled as.
        fraction: Share of the whole shard, rounded to examples. The paper counts poisons in
            multiples (0.5, 1, 2) of the subpopulation's own size and adds them to the data; a
            shard keeps its size here, since clients are told apart by it.
        rng: Draws the members, with replacement as in the release, and the places.

    Raises:
        ValueError: If there are no members.

    References:
        Jagielski et al., Subpopulation Data Poisoning Attacks, CCS 2021.
    """
    count = round(fraction * len(shard.labels))
    if count and not len(members):
        raise ValueError(
            f"the attackers hold no example of the subpopulation that is not of class {target}: "
            "choose another poison.size or poison.target"
        )
    places = torch.from_numpy(rng.permutation(len(shard.labels))[:count])
    picks = torch.from_numpy(rng.integers(max(1, len(members)), size=count))
    return changed(shard, places, members[picks], target)
