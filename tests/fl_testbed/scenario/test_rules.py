"""Every rule and pre-aggregation that a scenario can name runs; reweightings get what they ask."""

import pytest
import torch
from a_round import round_of
from pydantic import ValidationError

from clients.training import LocalTraining
from fl_testbed.scenario.catalogue import CATALOGUE
from fl_testbed.scenario.strategy import StrategySpec
from strategies.aggregation import TooFewClientsError
from strategies.aggregation.traits import traits_of
from strategies.pipeline import Pipeline
from strategies.randomness import Purpose, generator

N, D = 11, 40
NEEDED = {"n_malicious": 2, "radius": 1.0, "max_norm": 1.0, "noise_std": 0.1, "threshold": 3}
NEEDED |= {"step_size": 0.3, "local_steps": 4, "q": 0.5, "tilt": 2.0, "factor": 3.0, "epsilon": 0.1}


def with_needed_parameters(kind: str, catalogue: str) -> dict[str, object]:
    fields = CATALOGUE[catalogue][kind].model_fields
    needed = [name for name, field in fields.items() if field.is_required() and name != "kind"]
    return {"kind": kind} | {name: NEEDED[name] for name in needed}


def one_round(strategy: StrategySpec, n: int = N) -> torch.Tensor:
    torch.manual_seed(0)
    facts = round_of(
        n,
        losses=torch.rand(n, dtype=torch.float64),
        confidences=torch.ones(n, dtype=torch.float64),
        received=lambda: torch.ones(D),
        layers={"weight": slice(0, D)},
        reference=lambda: torch.ones(D),
        evaluate=lambda update: (0.5, float(update.norm())),
        respond=lambda update, n_inputs: torch.zeros(n_inputs, 2),
        represent=lambda update: update[None],
        rng=generator(0, Purpose.AGGREGATION, 1),
    )
    mixers = strategy.build_pre_aggregation(n)
    pipeline = Pipeline(strategy.aggregation.build(n), pre_aggregate=mixers)
    return pipeline(torch.randn(n, D) + 1, facts, {}).result.weights


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


@pytest.mark.parametrize("f", [1, 2, 4])
@pytest.mark.parametrize(
    ("catalogue", "kind"),
    [
        (catalogue, kind)
        for catalogue in ("rules", "pre_aggregations")
        for kind, spec in CATALOGUE[catalogue].items()
        if traits_of(getattr(spec, "function", None)).bound
    ],
)
def test_a_scenario_is_refused_exactly_where_the_method_is(
    catalogue: str, kind: str, f: int
) -> None:
    needed = with_needed_parameters(kind, catalogue)
    needed |= {"n_malicious": f} if "n_malicious" in needed else {}
    method = {"aggregation": needed}
    if catalogue == "pre_aggregations":
        method = {"pre_aggregation": [needed], "aggregation": {"kind": "mean"}}
    strategy = StrategySpec.model_validate(method)
    bound = traits_of(getattr(CATALOGUE[catalogue][kind], "function", None)).bound
    assert bound is not None
    least = bound.per_malicious * f + bound.more
    strategy.check(least)
    one_round(strategy, least)
    with pytest.raises(TooFewClientsError, match=f"{kind} needs"):
        strategy.check(least - 1)
    with pytest.raises(TooFewClientsError, match=f"{kind} needs"):
        one_round(strategy, least - 1)


def test_dnc_is_refused_by_how_many_clients_it_drops() -> None:
    rule = {"kind": "dnc", "n_malicious": 2, "filter_fraction": 2.0}
    strategy = StrategySpec.model_validate({"aggregation": rule})
    strategy.check(9)
    with pytest.raises(TooFewClientsError, match="dnc needs"):
        strategy.check(8)


def test_freqfed_is_refused_where_no_cluster_can_be_as_large_as_told() -> None:
    rule = {"kind": "freqfed", "min_cluster_size": 5}
    strategy = StrategySpec.model_validate({"aggregation": rule})
    strategy.check(5)
    with pytest.raises(TooFewClientsError, match="freqfed needs"):
        strategy.check(4)


@pytest.mark.parametrize(
    ("kind", "fact", "other"),
    [
        ("flame", "received", "updates"),
        ("freqfed", "received", "updates"),
        ("foolsgold", "layers", "all"),
    ],
)
def test_a_rule_is_handed_what_its_paper_compares_unless_told_otherwise(
    kind: str, fact: str, other: str
) -> None:
    def bound(rule: dict[str, str]) -> dict[str, object]:
        strategy = StrategySpec.model_validate({"aggregation": {"kind": kind} | rule})
        return strategy.aggregation.build(N).keywords

    assert fact not in bound({})
    assert bound({"compare": other})[fact] is None


@pytest.mark.parametrize("kind", [kind for kind in CATALOGUE["reweightings"] if kind != "none"])
def test_a_reweighting_is_told_all_that_the_scenario_says(kind: str) -> None:
    spec = CATALOGUE["reweightings"][kind](**with_needed_parameters(kind, "reweightings"))
    rule = spec.build(LocalTraining(lr=0.1, batch_size=5), lambda: torch.ones(2, 3))  # pyright: ignore[reportAttributeAccessIssue]
    given = spec.model_dump(exclude={"kind"}, exclude_none=True)
    assert {key: rule.keywords[key] for key in given} == given
    if kind == "q_fedavg":
        assert rule.keywords["lipschitz"] == 10  # 1 / lr


def test_a_fraction_is_of_the_sample_even_after_bucketing() -> None:
    steps = [{"kind": "bucketing"}, {"kind": "nearest_neighbour_mixing", "n_malicious": 0.4}]
    strategy = StrategySpec.model_validate(
        {"pre_aggregation": steps, "aggregation": {"kind": "mean"}}
    )
    with pytest.raises(TooFewClientsError, match="got n=5 and f=4"):
        strategy.check(10)


def test_a_fraction_that_comes_to_nobody_is_refused() -> None:
    rule = {"kind": "multi_krum", "n_malicious": 0.08}
    StrategySpec.model_validate({"aggregation": rule}).check(13)
    with pytest.raises(TooFewClientsError, match=r"n_malicious: 0.08 of a sample of 12 is less"):
        StrategySpec.model_validate({"aggregation": rule}).check(12)


def test_bucketing_keeps_f_and_checks_the_bound_on_buckets() -> None:
    krum = {"kind": "krum", "n_malicious": 2}
    plain = StrategySpec.model_validate({"aggregation": krum})
    plain.check(N)
    bucketed = StrategySpec.model_validate(
        {"pre_aggregation": [{"kind": "bucketing", "size": 2}], "aggregation": krum}
    )
    with pytest.raises(TooFewClientsError, match=r"got n=6 and f=2.*makes 6 of 11 clients"):
        bucketed.check(N)


def test_a_rule_without_its_needed_parameter_is_refused() -> None:
    with pytest.raises(ValidationError, match="n_malicious"):
        StrategySpec.model_validate({"aggregation": {"kind": "bulyan"}})
