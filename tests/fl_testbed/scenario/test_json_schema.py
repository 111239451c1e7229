"""The JSON Schema of scenario files agrees with what loads, by a public validator."""

import json
import os
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from fl_testbed.scenario import load_scenarios
from fl_testbed.scenario.json_schema import scenario_schema

REPOSITORY = Path(__file__).parents[3]
COMMITTED = REPOSITORY / "configs" / "scenario.schema.json"
SHIPPED = sorted(
    path for folder in ("configs", "experiments") for path in (REPOSITORY / folder).rglob("*.yaml")
)
GOOD = """
name: small
rounds: 6
dataset: {kind: digits}
model: {kind: mlp, hidden: [4]}
clients: {honest_majority: 5, honest_minority: 2, poisoned: 1, examples_each: 10}
training: {lr: 0.1, batch_size: 5}
strategy:
  aggregation: {kind: krum, n_malicious: 1}
"""


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = scenario_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_committed_schema_is_that_of_the_code():
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))
    assert committed == scenario_schema(), "make docs writes it anew"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_shipped_scenario_fits_and_names_the_schema(path, validator):
    validator.validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    where = os.path.relpath(COMMITTED, path.parent).replace(os.sep, "/")
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# yaml-language-server: $schema={where}"


def test_a_resolved_scenario_fits(validator):
    scenario = load_scenarios(REPOSITORY / "configs" / "quickstart.yaml")[0]
    validator.validate(yaml.safe_load(scenario.to_yaml()))


@pytest.mark.parametrize(
    "change",
    [
        ("", ""),
        ("{kind: digits}", "{kind: digits, minority: {kind: none}}"),
        ("{kind: mlp, hidden: [4]}", "{kind: 'mine.py:Net', args: {anything: [1]}}"),
        ("{kind: krum, n_malicious: 1}", "{kind: 'a.b:rule', is_selection: true}"),
        (
            "  aggregation: {kind: krum, n_malicious: 1}",
            "  {kind: flower, path: 'a.b:C', args: {}}",
        ),
        ("rounds: 6", "rounds: 6\nvariants: {a: null, b: {strategy.aggregation.n_malicious: 2}}"),
        ("rounds: 6\n", "extends: other.yaml\n"),
        ("rounds: 6", "rounds: 6\nrecord_updates: true\ninit: model.safetensors"),
        ("rounds: 6", "rounds: 6\ninit: {path: model.safetensors, sha256: abc}"),
        ("strategy:\n", "extends: other.yaml\nstrategy:\n  order: lift_then_filter\n"),
        ("{kind: mlp, hidden: [4]}", "{hidden: [4]}\nextends: other.yaml"),
        ("rounds: 6", "rounds: 6\nsweep: {seed: [0, 1], training.lr: {low: 0.1, high: 0.5}}"),
    ],
)
def test_what_loads_fits(change, validator):
    validator.validate(yaml.safe_load(GOOD.replace(*change)))


@pytest.mark.parametrize(
    "change",
    [
        ("rounds: 6", "ronds: 6"),
        ("rounds: 6", "rounds: six"),
        ("rounds: 6\n", ""),
        ("kind: krum", "kind: krun"),
        ("kind: krum, ", ""),
        ("hidden: [4]", "hidden: [4], dept: 2"),
        ("hidden: [4]", "hidden: 4"),
        ("lr: 0.1", "lr: -0.1"),
        ("lr: 0.1, ", ""),
        ("{kind: mlp, hidden: [4]}", "{kind: 'mine.py:Net', arguments: {}}"),
        ("  aggregation: {kind: krum, n_malicious: 1}", "  {kind: flower}"),
        ("rounds: 6", "rounds: 6\nvariants: {b: {strategi.aggregation: {kind: mean}}}"),
        ("rounds: 6", "rounds: 6\nvariants: {b: {training: {lr: fast}}}"),
        ("rounds: 6", "rounds: 6\nsweep: {seeds: [0, 1]}"),
        ("rounds: 6", "rounds: 6\nsweep: {seed: []}"),
        ("hidden: [4]", "hidden: [4], dept: 2}\nextends: other.yaml\nschedule: {first: 1"),
    ],
)
def test_what_does_not_load_does_not_fit(change, validator):
    assert change[0] in GOOD
    assert not validator.is_valid(yaml.safe_load(GOOD.replace(*change)))


def test_keys_say_what_they_are():
    definitions = scenario_schema()["$defs"]
    batch = definitions["TrainingSpec"]["properties"]["cohort"]
    assert (
        batch["description"]
        == "most clients trained at once; > 1 is faster and changes the last bits"
    )
    assert definitions["KrumSpec"]["description"].startswith("Krum: the one update")
