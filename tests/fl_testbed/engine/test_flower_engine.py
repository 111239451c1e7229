"""What processes of Flower's own engine keep, and say of clients that fail."""

import gc
import time
import weakref
from pathlib import Path

import pytest
from commands import SCENARIO, patches, run, write_scenario
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fl_testbed.engine import flower_engine
from fl_testbed.engine.flower_engine import NamedClientApp, app_of
from fl_testbed.engine.flower_internals import become_server
from fl_testbed.scenario import Scenario, load_scenarios


def test_a_process_keeps_the_app_of_one_scenario_and_not_its_data_for_ever(tmp_path: Path) -> None:
    loaded = load_scenarios(write_scenario(tmp_path), ["sweep.seed=[0, 1]"])
    first, second = (scenario for scenario in loaded if isinstance(scenario, Scenario))
    app = weakref.ref(app_of(first, None))
    assert app_of(first, None) is app()
    app_of(second, None)
    gc.collect()
    assert app() is None


def raises(message: Message, context: Context) -> Message:
    context.state["half"] = ConfigRecord()
    raise RuntimeError("out of battery\non the second line")


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (lambda message, context: time.sleep(600), "no reply within 0.1 s"),
        (raises, "RuntimeError: out of battery on the second line"),
        (lambda message, context: None, "returned None, not a Message"),
    ],
)
def test_a_client_that_hangs_or_fails_says_so_and_keeps_no_node_busy(
    app: ClientApp, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scenario,) = load_scenarios(write_scenario(tmp_path), ["engine.client_timeout_s=0.1"])
    assert isinstance(scenario, Scenario)
    become_server()
    monkeypatch.setattr(flower_engine, "app_of", lambda scenario, data_dir: app)
    message = Message(RecordDict(), dst_node_id=7, message_type="train")
    context = Context(1, 7, {}, RecordDict(), {})
    reply = NamedClientApp(scenario, None)(message, context)
    assert str(reply.error.reason).startswith(reason)
    assert not context.state


BROKEN_APP = """
def patch(engine):
    def broken(scenario, federation):
        raise RuntimeError("no such layer")

    engine.build_client_app = broken
"""


def test_the_reason_why_an_app_cannot_be_built_is_told(tmp_path: Path) -> None:
    few = SCENARIO.replace(
        "majority: 8, honest_minority: 2, poisoned: 2",
        "majority: 1, honest_minority: 1, poisoned: 1",
    )
    write_scenario(tmp_path, few)
    broken = patches(tmp_path, "fl_testbed.engine.flower_engine", BROKEN_APP)
    how = ("--engine", "flower", "--workers", 1)
    done = run("run", "scenario.yaml", *how, cwd=tmp_path, patches=broken)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]  # after Flower's own
    assert said.startswith("runs/small/default/seed-0: the run failed: RuntimeError: 3 of 3 Flo")
    assert "no such layer" in said
    assert len(said) < 300


@pytest.mark.parametrize("engine", ["inline", "ray", "flower"])
@pytest.mark.parametrize(
    ("setting", "remembers"),
    [
        ("rounds=2", False),
        ("local_method={kind: example_jtt, n_copies: 2, warm_up_rounds: 1}", True),
        ("local_method={kind: fedprox, pull: 0.1}", False),
        ("training_attack={kind: pgd, radius: 1.0, relative: true}", True),
        ("training_attack={kind: pgd, radius: 1.0}", False),
    ],
)
def test_a_run_cannot_go_on_without_what_its_clients_remember(
    tmp_path: Path, engine: str, setting: str, remembers: bool
) -> None:
    (scenario,) = load_scenarios(write_scenario(tmp_path), [f"engine.kind={engine}", setting])
    assert scenario.can_resume == (not remembers or engine != "flower")
