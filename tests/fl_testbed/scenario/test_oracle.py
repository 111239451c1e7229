"""``n_malicious: oracle``: the true number of attackers in place of a guess."""

import pytest

from fl_testbed.engine.datasets import DatasetCache
from fl_testbed.engine.tables import variant_table
from fl_testbed.scenario import ScenarioError
from fl_testbed.scenario.rules import AdaptiveClippingSpec, CafSpec

NONE_OF_TWO = "[{count: 2, schedule: {first: never}}, {attack: {kind: sign_flip}}]"
FLIP = "attack={kind: sign_flip}"
TOLD = "strategy={aggregation: {kind: krum, n_malicious: oracle}}"
OWN = "def own(updates, n_malicious):\n    raise NotImplementedError\n"  # nobody calls it


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        (["clients.poisoned=1"], 1),
        (["clients.poisoned=4"], 4),
        (["schedule={first: 3, every: 2}"], 4),
        (["schedule={first: never}"], 0),
        (["clients.poisoned=0"], 0),
        (["attack={kind: none}", f"attackers={NONE_OF_TWO}"], 2),
        (["sampling.fraction=0.5"], 2),  # 4 of 16, of a sample of 8
        (["sampling.fraction=0.99"], 3),
        (["sampling={fraction: 0.5, attackers: 1}"], 1),
        (["sampling={fraction: 0.5, attackers: 0}"], 0),
    ],
)
def test_a_rule_is_told_how_many_of_a_sample_attack(settings, number, load):
    scenario = load("", FLIP, TOLD, *settings)
    assert scenario.is_oracle
    assert scenario.told_strategy.aggregation.build(8).keywords == {"n_malicious": number}
    assert scenario.told_strategy.n_assumed(8) == number
    assert scenario.identity()["strategy"]["aggregation"]["n_malicious"] == "oracle"


def test_steps_before_the_rule_are_told_too(load):
    step = "{kind: adaptive_clipping, n_malicious: oracle}"
    given = f"strategy={{pre_aggregation: [{step}], aggregation: {{kind: caf, n_malicious: 1}}}}"
    scenario = load("", FLIP, given)
    assert scenario.is_oracle
    step, rule = (*scenario.told_strategy.pre_aggregation, scenario.told_strategy.aggregation)
    assert step == AdaptiveClippingSpec(kind="adaptive_clipping", n_malicious=4)
    assert rule == CafSpec(kind="caf", n_malicious=1)


def test_code_of_ones_own_and_flowers_is_told_through_its_arguments(load, tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    args = "args: {n_malicious: oracle}"
    own = load("", FLIP, f"strategy={{aggregation: {{kind: '{tmp_path}/mine.py:own', {args}}}}}")
    assert own.is_oracle
    assert own.told_strategy.aggregation.build(16).keywords == {"n_malicious": 4}
    path = "path: 'flwr.serverapp.strategy:Krum', args: {num_malicious_nodes: oracle}"
    flower = load("", FLIP, f"strategy={{kind: flower, {path}}}")
    assert flower.is_oracle
    assert flower.told_strategy.build().num_malicious_nodes == flower.told_strategy.n_assumed(16)
    assert flower.told_strategy.n_assumed(16) == 4


def test_whom_nobody_tells_is_no_oracle(load):
    scenario = load("", FLIP, "strategy={aggregation: {kind: krum, n_malicious: 4}}")
    assert not scenario.is_oracle
    assert scenario.told_strategy is scenario.strategy


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        (
            "clients.poisoned=12",
            "got n=24 and f=12: sample at least 27 clients or lower n_malicious "
            "(the oracle says f=12)",
        ),
        (
            "sampling.fraction=0.2",
            "n_malicious: 4 of 16 attack, less than one in a sample of 3: give a count in place of "
            "oracle",
        ),
    ],
)
def test_the_truth_must_be_one_that_the_rule_can_bear(setting, fault, load):
    with pytest.raises(ScenarioError) as error:
        load("", FLIP, TOLD, setting)
    (found,) = error.value.faults
    assert found.key == "strategy.aggregation"
    assert found.text.endswith(fault)


def test_validate_shows_the_number(load):
    *_, last = variant_table([load("", FLIP, TOLD)], DatasetCache(None)).columns
    assert (last.header, *last.cells) == ("told by oracle", "4")
