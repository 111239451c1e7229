"""A cluster of several Ray nodes, each a process tree of its own on this machine."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import assert_same_results, run, start, succeed, write_scenario
from own_code import imports, write_own_scenario
from test_faults import wait_for_rounds

RAY = Path(sys.executable).parent / "ray"
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "a-token-that-all-nodes-of-this-test-share",
}


def start_node(*arguments: str) -> subprocess.Popen[str]:
    """Start a node and wait until it is up: before its head is, a node gives up at once."""
    node = subprocess.Popen(
        [str(RAY), "start", *arguments, "--num-cpus=1", "--block"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert node.stdout is not None
    said = []
    for line in node.stdout:
        said.append(line)
        if "Ray runtime started" in line:
            return node
    pytest.fail("".join(said))


def kill(node: subprocess.Popen[str]) -> None:
    os.killpg(node.pid, signal.SIGKILL)
    node.wait()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Two nodes of one core each; yields the address and the node without the head."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    # A local cluster of a test before has set it, in this process.
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Ray keeps the head's address there: in /tmp/ray, any later ray.init() would wait for it.
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        head = start_node("--head", f"--port={port}", "--include-dashboard=false")
        nodes = [head]
        try:  # a head without another node would stay
            nodes.append(start_node(f"--address=127.0.0.1:{port}"))
            yield f"127.0.0.1:{port}", nodes[-1]
        finally:
            for node in reversed(nodes):
                if node.poll() is None:
                    kill(node)


def test_an_address_where_nobody_answers_ends_the_command(tmp_path: Path) -> None:
    write_scenario(tmp_path)
    with socket.socket() as taken:  # so that nobody else listens there
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("run", "scenario.yaml", "--ray-address", address, cwd=tmp_path)
    assert done.returncode == 1
    assert f"the run stopped: no Ray cluster answers at {address}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_node_lost_in_mid_run_changes_nothing_even_with_a_users_own_code(
    cluster: tuple[str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    address, other = cluster
    rounds = ("--set", "rounds=30", "--set", "training.local_epochs=2")
    write_own_scenario(tmp_path)
    succeed("run", "scenario.yaml", "--out", "inline", *rounds, cwd=tmp_path)
    arguments = ("run", "scenario.yaml", "--out", "cluster", "--ray-address", address)
    two = ("--workers", 2, "--set", "engine.parallel=clients")
    process = start(*arguments, *rounds, *two, cwd=tmp_path)
    wait_for_rounds(process, tmp_path / "cluster", 5)
    kill(other)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    # Each command ran it to load the scenario, the dataset and a run: nodes got it by value.
    assert imports(tmp_path) == 6
    assert_same_results(tmp_path / "inline", tmp_path / "cluster")
    events = (tmp_path / "cluster" / "small" / "default" / "seed-0" / "events.log").read_text()
    assert "worker lost" in events
