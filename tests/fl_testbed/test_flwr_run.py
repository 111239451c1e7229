"""``flwr run .`` on this repository and on an app that uses our strategies and nothing else of it,
with a SuperLink that listens on the loopback alone."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import MagicMock

import pandas as pd
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from fl_testbed import flwr_run
from fl_testbed.engine.datasets import load_dataset
from fl_testbed.engine.flower_internals import become_server
from fl_testbed.engine.launch import launch
from fl_testbed.engine.models import build_model
from fl_testbed.engine.options import Options
from fl_testbed.scenario import ScenarioError, load_scenarios

REPOSITORY = Path(__file__).parents[2]
PLAIN_APP = REPOSITORY / "experiments" / "plain_flower_app"
BIN = Path(sys.executable).parent
SETTINGS = (
    "rounds=1",
    "variants={few: {clients.dropout: 0.9, strategy: {on_too_few: stop, aggregation: "
    "{kind: krum, n_malicious: 5}}}, mean: {}, done: {}}",
    "clients.examples_each=10",
    "server_data.n_examples=20",
)
Flwr = Callable[..., str]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def wait_until_up(port: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
            return
        time.sleep(0.2)
    pytest.fail("the SuperLink did not come up")


@contextmanager
def superlink(home: Path, **more: str) -> Iterator[Flwr]:
    """Yields ``flwr run`` of an app with some SuperNodes and a run config: returns its output."""
    http, control = free_port(), free_port()
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"} | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": http,
        "FLWR_LOCAL_CONTROL_API_PORT": control,
        "RAY_ADDRESS": "local",
        **more,
    }
    options = f"--insecure --simulation --isolation subprocess --host 127.0.0.1 --port {http}"
    control_address = ["--control-api-address", f"127.0.0.1:{control}"]
    server = subprocess.Popen(
        [str(BIN / "flower-superlink"), *options.split(), *control_address],
        env=environment,
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def run(app: Path, n_nodes: int, config: str) -> str:
        one_worker = f"client-resources-num-cpus={os.cpu_count()}"
        options = [
            "--federation-config",
            f"num-supernodes={n_nodes} {one_worker}",
            "--run-config",
            config,
        ]
        done = subprocess.run(
            [str(BIN / "flwr"), "run", str(app), "local", "--stream", *options],
            env=environment,
            cwd=home,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        return done.stdout + done.stderr

    try:
        wait_until_up(http)
        yield run
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def flwr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flwr]:
    with superlink(tmp_path_factory.mktemp("flwr")) as run:
        yield run


def config(out: Path, more: str = "") -> str:
    return f'set="{shlex.join(SETTINGS)}" out="{out}" {more}'


def test_a_sweep_goes_on_gives_the_results_of_our_own_engine_and_one_failure_ends_no_other(
    flwr: Flwr, tmp_path: Path
) -> None:
    scenarios = load_scenarios(REPOSITORY / "configs" / "quickstart.yaml", SETTINGS)
    (failure,) = launch(scenarios, Options(tmp_path / "ours", None, ""), _Silent())
    assert "krum needs n >= 2f + 3 clients" in failure
    out = tmp_path / "flower"
    shutil.copytree(tmp_path / "ours", out)
    shutil.rmtree(out / "quickstart" / "mean")
    said = flwr(REPOSITORY, 26, config(out, "resume=true"))
    folder = Path("quickstart") / "mean" / "seed-0"
    assert (out / folder / "summary.json").exists(), said
    assert failure.replace("/ours/", "/flower/") in said
    assert "done seed 0 done before" in " ".join(said.split())
    events = (out / "quickstart" / "few" / "seed-0" / "events.log").read_text()
    assert "resumed after round 0" in events
    theirs, ours = (
        pd.read_csv(tmp_path / out / folder / "clients.csv") for out in ("flower", "ours")
    )
    assert len(theirs) == 26
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-3)
    assert len(json.loads((out / "quickstart" / "sweep.json").read_text())["runs"]) == 3


def test_a_federation_of_another_size_is_told_how_large_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flwr_run, "STILL_S", 0.2)
    run_config: dict[str, bool | float | int | str] = {
        "scenario": "configs/quickstart.yaml",
        "set": shlex.join(SETTINGS),
        "data-dir": "",
        "out": str(tmp_path),
        "resume": False,
        "redo": False,
    }
    three_nodes = MagicMock(get_node_ids=lambda: [1, 2, 3])
    with pytest.raises(ScenarioError) as error:
        flwr_run.main(three_nodes, Context(1, 0, {}, RecordDict(), run_config))
    assert "few has 26 clients, but the federation 3 SuperNodes" in str(error.value)
    assert "pass --federation-config 'num-supernodes=26'" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_data_are_where_the_run_config_says_or_else_the_environment(tmp_path: Path) -> None:
    found = []
    for folder in ("", "elsewhere"):
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("FL_TESTBED_DATA", str(tmp_path))
            context = Context(1, 0, {}, RecordDict(), {"data-dir": folder})
            found.append(flwr_run._data_dir(context))
    assert found == [tmp_path, Path("elsewhere")]


def test_what_a_node_keeps_of_one_run_is_gone_in_the_next() -> None:
    settings = ("clients.examples_each=10", "local_method={kind: worker_momentum}",
                "variants={first: {}, second: {training.lr: 0.2}}")  # fmt: skip
    run_config: dict[str, bool | float | int | str] = {
        "scenario": "configs/quickstart.yaml",
        "set": shlex.join(settings),
        "data-dir": "",
    }
    first, _ = load_scenarios(REPOSITORY / "configs" / "quickstart.yaml", settings)
    model = build_model(first, load_dataset(first, None))
    become_server()

    def sent(context: Context, place: int, round_: int) -> list[float]:
        content = RecordDict({
            "arrays": ArrayRecord(model.state_dict()),
            "config": ConfigRecord({"server-round": round_}),
            "run": ConfigRecord({"place": place}),
        })  # fmt: skip
        reply = flwr_run.client(Message(content, 1, "train"), context)
        assert not reply.has_error()
        return [
            float(array.numpy().sum()) for array in reply.content.array_records["arrays"].values()
        ]

    def new() -> Context:
        return Context(1, 1, {"partition-id": 0}, RecordDict(), run_config)

    # Flower keeps a node's context as long as `flwr run` lasts, which is all scenarios.
    context, other = new(), new()
    assert sent(context, 0, 1) == sent(other, 0, 1)
    assert sent(context, 0, 2) != sent(new(), 0, 2)  # it remembers the round before
    assert sent(context, 1, 1) == sent(new(), 1, 1)


def test_our_strategies_run_in_a_plain_flower_app_without_the_rest_of_this_repository(
    tmp_path: Path,
) -> None:
    (tmp_path / "strategies").symlink_to(REPOSITORY / "strategies")
    for absent in ("fl_testbed", "clients"):
        (tmp_path / f"{absent}.py").write_text("raise ImportError('this app does without')")
    (home := tmp_path / "home").mkdir()
    with superlink(home, PYTHONPATH=str(tmp_path)) as flwr:
        said = flwr(PLAIN_APP, 10, "num-server-rounds=2")
    (last,) = re.findall(r"round  2  accuracy (\S+)  weights (.*?)  unexplained", said) or [said]
    weights = [float(weight) for weight in last[1].split()]
    assert weights[:2] == [0, 0], said  # the two that train on wrong labels
    assert sum(weights) == pytest.approx(1, abs=0.05)


def test_the_plain_app_depends_on_nothing_that_no_index_has() -> None:
    # Flower installs what an app depends on before a run, and fails where something is not found.
    project = tomllib.loads((PLAIN_APP / "pyproject.toml").read_text())["project"]
    names = {re.split(r"\W", dependency)[0] for dependency in project["dependencies"]}
    assert names == {"flwr", "scikit", "torch"}


class _Silent:
    def begin(self, *args: object) -> None: ...

    round = note = end = begin
