import numpy as np
import pytest
import torch
from torch import nn

from clients.reporting import Report, claimed, report_of
from clients.shard import Role, Shard
from clients.training import LocalTraining, train


def shard(n: int) -> Shard:
    rng = torch.Generator().manual_seed(n)
    inputs = torch.rand(n, 1, 2, 3, generator=rng, dtype=torch.float64)
    return Shard(inputs, torch.arange(n) % 3, torch.zeros(n).long(), torch.zeros(n).bool(),
                 Role.HONEST_MAJORITY)  # fmt: skip


def test_loss_and_confidence_are_means_over_examples():
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([0.0, 0.0, torch.log(torch.tensor(2.0))]))
    # Classes 0, 1, 2, 0 have probabilities 1/4, 1/4, 1/2, 1/4.
    report = report_of(model, shard(4))
    assert report.confidence == pytest.approx(5 / 16)
    log2 = torch.log(torch.tensor(2.0)).item()
    assert report.loss == pytest.approx((2 + 2 + 1 + 2) * log2 / 4)


def test_batches_do_not_change_a_report(monkeypatch):
    model, own = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)).double(), shard(7)
    whole = report_of(model, own)
    monkeypatch.setattr("clients.training.EVALUATION_BATCH", 3)
    assert report_of(model, own) == pytest.approx(whole, rel=1e-12)


def test_reporting_switches_dropout_off_and_training_on():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, 3)).double()
    assert len({report_of(model, shard(20)) for _ in range(5)}) == 1
    train(model, shard(20), LocalTraining(lr=0.1, batch_size=5), np.random.default_rng(0))
    assert model.training


@pytest.mark.parametrize(
    ("claim", "said"), [("honest", (2.0, 0.6)), ("low", (0.2, 0.96)), ("high", (20.0, 0.06))]
)
def test_an_attacker_may_claim_a_tenth_or_ten_times_its_loss(claim, said):
    assert claimed(Report(2.0, 0.6), claim) == pytest.approx(said)
