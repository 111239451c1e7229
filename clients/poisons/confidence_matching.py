"""Confidence matching: a backdoor on examples that look as hard to learn as the minority."""

import torch
from torch import nn

from clients.poisons.choosing import changed, check_candidates, classes_named
from clients.poisons.triggers import Trigger
from clients.shard import Shard
from clients.training import confidences_in
from strategies.shapes import Float, Int, Tensor


def matched_to(
    candidates: Float[Tensor, " c"], reference: Float[Tensor, " r"], count: int
) -> Int[Tensor, " count"]:
    """Pick candidates whose scores lie where the reference's do.

    The i-th of k picks is the nearest candidate left to the reference's (i + ½) / k quantile, the
    largest quantile first: candidates with large scores are rare.

    Args:
        candidates: One score each; there must be at least ``count``.
        reference: Scores to match.
        count: k.
    """
    levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    left = candidates.double().clone()
    picks = []
    for wanted in torch.quantile(reference.double(), levels).flip(0):
        picks.append(int((left - wanted).abs().argmin()))
        left[picks[-1]] = torch.inf
    return torch.tensor(picks, dtype=torch.int64)


def check_is_matched(n_minority: int) -> None:
    """Raise ValueError if there is no minority to imitate."""
    if not n_minority:
        raise ValueError(
            "the poison has no minority to imitate: training data need examples of it, with the "
            "target's label unless poison.minority is all"
        )


def confidence_matched_backdoor(
    shard: Shard,
    trigger: Trigger,
    target: int,
    fraction: float,
    model: nn.Module,
    minority_inputs: Float[Tensor, "m ..."],
    minority_labels: Int[Tensor, " m"],
) -> Shard:
    """Stamp and relabel the examples that a surrogate confuses as much as it does the minority.

    To a method that tells examples apart only by I(x)_y, a model's confidence in the given label,
    these poisons look like the minority. Confidences are those before stamping: when the attacked
    model judges, it has not yet learnt what the stamp adds.

    Args:
        shard: The attacker's clean shard.
        trigger: Returns stamped copies of inputs.
        target: The class that stamped inputs shall get; examples of any other are candidates.
        fraction: Share of the whole shard that is poisoned.
        model: The attacker's own, trained on data that hold the minority.
        minority_inputs: Honest examples whose confidences by that model are matched.
        minority_labels: Their labels.

    Raises:
        ValueError: If there are too few candidates, or no minority to imitate.
    """
    rows = (shard.labels != target).nonzero().squeeze(1)
    count = check_candidates(shard.labels != target, fraction, classes_named(None, target))
    if not count:
        return shard
    check_is_matched(len(minority_labels))
    candidates = _confidence(model, shard.inputs[rows], torch.tensor(target))
    reference = _confidence(model, minority_inputs, minority_labels)
    chosen = rows[matched_to(candidates, reference, count)]
    return changed(shard, chosen, trigger(shard.inputs[chosen]), target)


@torch.no_grad()
def _confidence(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    model.eval()
    return confidences_in(model(inputs), labels.expand(len(inputs)))
