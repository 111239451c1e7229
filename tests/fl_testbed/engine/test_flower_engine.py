"""What processes of Flower's own engine keep."""

import gc
import weakref
from pathlib import Path

import pytest
from commands import write_scenario

from fl_testbed.engine.flower_engine import app_of
from fl_testbed.scenario import Scenario, load_scenarios


def test_a_process_keeps_the_app_of_one_scenario_and_not_its_data_for_ever(tmp_path: Path) -> None:
    loaded = load_scenarios(write_scenario(tmp_path), ["sweep.seed=[0, 1]"])
    first, second = (scenario for scenario in loaded if isinstance(scenario, Scenario))
    app = weakref.ref(app_of(first, None))
    assert app_of(first, None) is app()
    app_of(second, None)
    gc.collect()
    assert app() is None


@pytest.mark.parametrize("engine", ["inline", "ray", "flower"])
@pytest.mark.parametrize(
    ("setting", "remembers"),
    [
        ("rounds=2", False),
        ("local_method={kind: example_jtt, n_copies: 2, warm_up_rounds: 1}", True),
        ("training_attack={kind: neurotoxin}", True),
        ("training_attack={kind: pgd, radius: 1.0}", False),
    ],
)
def test_a_run_cannot_go_on_without_what_its_clients_remember(
    tmp_path: Path, engine: str, setting: str, remembers: bool
) -> None:
    (scenario,) = load_scenarios(write_scenario(tmp_path), [f"engine.kind={engine}", setting])
    assert scenario.can_resume == (not remembers or engine != "flower")
