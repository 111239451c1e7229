import pytest
import torch
from torch import nn

from clients.poisons import confidence_matched_backdoor, matched_to
from clients.shard import Role, Shard


def test_picks_lie_at_the_quantiles_of_the_reference():
    candidates = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    # Quantiles ¼ and ¾ of (0.2, 0.6) are 0.3 and 0.5; the larger is served first.
    assert matched_to(candidates, torch.tensor([0.2, 0.6]), 2).tolist() == [5, 3]


def test_nobody_is_picked_twice():
    picks = matched_to(torch.tensor([0.5, 0.9, 0.4]), torch.tensor([0.5, 0.5]), 3)
    assert sorted(picks.tolist()) == [0, 1, 2]


class Confidence(nn.Module):
    """Gives class 1 the probability that the single feature says."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        p = inputs[:, 0].clamp(1e-6, 1 - 1e-6)
        return torch.stack([(1 - p).log(), p.log()], dim=1)


def shard() -> Shard:
    inputs = torch.linspace(0, 0.9, 10)[:, None]
    labels = torch.tensor([0] * 9 + [1])
    zeros = torch.zeros(10)
    return Shard(inputs, labels, zeros.long(), zeros.bool(), Role.POISONED)


def poisoned(fraction: float = 0.2) -> Shard:
    return confidence_matched_backdoor(
        shard(),
        lambda inputs: inputs + 0.05,
        target=1,
        fraction=fraction,
        model=Confidence(),
        minority_inputs=torch.tensor([[0.15], [0.45]]),
        minority_labels=torch.tensor([1, 1]),
    )


def test_sources_are_as_likely_as_the_minority_and_get_stamp_and_target():
    made = poisoned()
    # Quantiles ¼ and ¾ of (0.15, 0.45) are 0.225 and 0.375: sources that are class 1, which they
    # will be called, with 0.2 and 0.4, and not those that are what they are with so much.
    assert made.is_poisoned.nonzero().squeeze(1).tolist() == [2, 4]
    assert made.labels.tolist() == [0, 0, 1, 0, 1, 0, 0, 0, 0, 1]
    assert made.inputs[[2, 4], 0].tolist() == pytest.approx([0.25, 0.45])
    untouched = ~made.is_poisoned
    assert torch.equal(made.inputs[untouched], shard().inputs[untouched])


def test_too_few_candidates_are_refused():
    with pytest.raises(ValueError, match="needs 10 examples of classes other than 1"):
        poisoned(fraction=1.0)


def test_without_a_minority_there_is_nobody_to_be_like_but_no_share_needs_nobody():
    def matched(fraction: float) -> Shard:
        nobody = torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64)
        return confidence_matched_backdoor(
            shard(), lambda inputs: inputs, 1, fraction, Confidence(), *nobody
        )

    with pytest.raises(ValueError, match="no minority to imitate"):
        matched(0.2)
    assert not matched(0.0).is_poisoned.any()
