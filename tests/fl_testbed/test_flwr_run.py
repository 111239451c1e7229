"""``flwr run .`` on this repository, with a SuperLink that listens on the loopback alone."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from fl_testbed.engine.launch import Options, launch
from fl_testbed.scenario import load_scenarios

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SETTINGS = (
    "rounds=1",
    "variants={mean:{}}",
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


@pytest.fixture(scope="module")
def flwr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flwr]:
    home = tmp_path_factory.mktemp("flwr")
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
    }
    options = f"--insecure --simulation --isolation subprocess --host 127.0.0.1 --port {http}"
    control_address = ["--control-api-address", f"127.0.0.1:{control}"]
    superlink = subprocess.Popen(
        [str(BIN / "flower-superlink"), *options.split(), *control_address],
        env=environment,
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def run(n_nodes: int, out: Path) -> str:
        federation = f"num-supernodes={n_nodes} client-resources-num-cpus=1"
        config = f'set="{" ".join(SETTINGS)}" out="{out}"'
        options = ["--federation-config", federation, "--run-config", config]
        done = subprocess.run(
            [str(BIN / "flwr"), "run", str(REPOSITORY), "local", "--stream", *options],
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
        os.killpg(superlink.pid, signal.SIGTERM)
        superlink.wait(timeout=30)


def test_a_scenario_in_the_run_config_gives_the_results_of_our_own_engine(
    flwr: Flwr, tmp_path: Path
) -> None:
    said = flwr(26, tmp_path / "flower")
    folder = Path("quickstart") / "mean" / "seed-0"
    assert (tmp_path / "flower" / folder / "summary.json").exists(), said
    scenarios = load_scenarios(REPOSITORY / "configs" / "quickstart.yaml", SETTINGS)
    launch(scenarios, Options(tmp_path / "ours", None, ""), _Silent())
    theirs, ours = (
        pd.read_csv(tmp_path / out / folder / "clients.csv") for out in ("flower", "ours")
    )
    assert len(theirs) == 26
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-3)


def test_a_federation_of_another_size_is_told_how_large_to_be(flwr: Flwr, tmp_path: Path) -> None:
    said = " ".join(flwr(3, tmp_path).split())
    assert "mean has 26 clients, the federation 3 SuperNodes" in said
    assert "pass --federation-config 'num-supernodes=26'" in said
    assert not list(tmp_path.iterdir())


class _Silent:
    def begin(self, *args: object) -> None: ...

    round = note = end = begin
