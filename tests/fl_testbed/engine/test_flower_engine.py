"""What processes of Flower's own engine keep."""

import gc
import weakref
from pathlib import Path

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
