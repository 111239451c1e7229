"""What a client tells the server of how well the received model serves it."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from clients.shard import Shard
from clients.training import EVALUATION_BATCH

Claim = Literal["honest", "low", "high"]
"""How an attacker reports: the truth, a tenth of its loss, or ten times its loss."""

EXAGGERATION = 10.0


class Report(NamedTuple):
    """How well a model serves a client."""

    loss: float
    """Mean cross-entropy on the client's own data."""
    confidence: float
    """Mean probability that the model gives the labels of the data."""


@torch.no_grad()
def report_of(model: nn.Module, shard: Shard) -> Report:
    """Return how well a model does on a shard."""
    model.eval()
    loss, confidence = 0.0, 0.0
    batches = zip(
        shard.inputs.split(EVALUATION_BATCH), shard.labels.split(EVALUATION_BATCH), strict=True
    )
    for inputs, labels in batches:
        losses = F.cross_entropy(model(inputs), labels, reduction="none")
        loss += losses.sum().item()
        confidence += (-losses.double()).exp().sum().item()
    return Report(loss / len(shard.labels), confidence / len(shard.labels))


def claimed(report: Report, claim: Claim) -> Report:
    """Return what a client says: one that claims a low loss shrinks its loss and its doubt."""
    if claim == "low":
        doubt = (1 - report.confidence) / EXAGGERATION
        return Report(report.loss / EXAGGERATION, 1 - doubt)
    if claim == "high":
        return Report(report.loss * EXAGGERATION, report.confidence / EXAGGERATION)
    return report
