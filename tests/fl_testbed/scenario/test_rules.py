"""Every rule and pre-aggregation that a scenario can name runs."""

import pytest
import torch
from pydantic import ValidationError

from fl_testbed.scenario.catalogue import CATALOGUE
from fl_testbed.scenario.methods import StrategySpec
from strategies.aggregation import TooFewClientsError
from strategies.pipeline import Pipeline, RoundFacts
from strategies.randomness import Purpose, generator

N, D = 11, 40
NEEDED = {"n_malicious": 2, "radius": 1.0, "max_norm": 1.0, "noise_std": 0.1, "threshold": 3}


def with_needed_parameters(kind: str, catalogue: str) -> dict[str, object]:
    fields = CATALOGUE[catalogue][kind].model_fields
    needed = [name for name, field in fields.items() if field.is_required() and name != "kind"]
    return {"kind": kind} | {name: NEEDED[name] for name in needed}


def one_round(strategy: StrategySpec) -> torch.Tensor:
    torch.manual_seed(0)
    facts = RoundFacts(
        round_=1,
        clients=torch.arange(N),
        prior=torch.full((N,), 1 / N, dtype=torch.float64),
        losses=torch.rand(N, dtype=torch.float64),
        server_update=lambda: torch.ones(D),
        evaluate=lambda update: (0.5, float(update.norm())),
        rng=generator(0, Purpose.AGGREGATION, 1),
    )
    mixers = strategy.build_pre_aggregation(N)
    pipeline = Pipeline(strategy.build_aggregation(N), pre_aggregate=mixers)
    return pipeline(torch.randn(N, D) + 1, facts, {}).result.weights


@pytest.mark.parametrize("kind", CATALOGUE["rules"])
def test_every_rule_can_be_named(kind: str) -> None:
    strategy = StrategySpec.model_validate({"aggregation": with_needed_parameters(kind, "rules")})
    strategy.check(N)
    assert one_round(strategy).sum() == pytest.approx(1)


@pytest.mark.parametrize("kind", CATALOGUE["pre_aggregations"])
def test_every_pre_aggregation_can_be_named(kind: str) -> None:
    step = with_needed_parameters(kind, "pre_aggregations")
    rule = {"kind": "trimmed_mean", "n_malicious": 2}
    strategy = StrategySpec.model_validate({"pre_aggregation": [step], "aggregation": rule})
    strategy.check(N)
    assert one_round(strategy).sum() == pytest.approx(1)


def test_bucketing_keeps_f_and_checks_the_bound_on_buckets() -> None:
    krum = {"kind": "krum", "n_malicious": 2}
    plain = StrategySpec.model_validate({"aggregation": krum})
    plain.check(N)
    bucketed = StrategySpec.model_validate(
        {"pre_aggregation": [{"kind": "bucketing", "size": 2}], "aggregation": krum}
    )
    with pytest.raises(TooFewClientsError, match="got n=6 and f=2"):
        bucketed.check(N)


def test_a_rule_without_its_needed_parameter_is_refused() -> None:
    with pytest.raises(ValidationError, match="n_malicious"):
        StrategySpec.model_validate({"aggregation": {"kind": "bulyan"}})
