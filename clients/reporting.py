"""What a client tells the server about how well the received model serves it."""

from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import nn

from clients.shard import Shard
from clients.training import logits_of

Claim = Literal["honest", "low", "high"]
"""How an attacker reports: the truth, a tenth of its loss, or ten times its loss."""

EXAGGERATION = 10.0


class Report(NamedTuple):
    """How well a model serves a client."""

    loss: float
    """Mean cross-entropy on the client's own data."""
    confidence: float
    """Mean probability that the model gives the labels of the data."""


def report_of(model: nn.Module, shard: Shard) -> Report:
    """Return how well a model does on a shard."""
    losses = F.cross_entropy(logits_of(model, shard.inputs), shard.labels, reduction="none")
    return Report(losses.sum().item() / len(losses), (-losses.double()).exp().mean().item())


def claimed(report: Report, claim: Claim) -> Report:
    """Return the report that a client sends: a low claim shrinks its loss and 1 - its
    confidence."""
    if claim == "low":
        doubt = (1 - report.confidence) / EXAGGERATION
        return Report(report.loss / EXAGGERATION, 1 - doubt)
    if claim == "high":
        return Report(report.loss * EXAGGERATION, report.confidence / EXAGGERATION)
    return report
