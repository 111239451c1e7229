"""Clients that misbehave, workers and drivers that are killed, disks that fill up.

All through the real command. Faults are put into the real client code by a ``sitecustomize`` that
patches it in every process, so that the shipped code needs no hooks for them.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pandas as pd
import psutil
import pytest
from commands import (
    SCENARIO,
    assert_same_results,
    patches,
    run,
    start,
    succeed,
    write_scenario,
)

from fl_testbed.engine import ray_runs

BAD_CLIENTS = """
def patch(app):
    import time
    import numpy as np
    from flwr.app import Message, RecordDict
    from strategies.flower_arrays import ArrayView
    train = app.ShardClientApp._train

    def first(reply, change):
        arrays = reply.content["arrays"]
        name = next(iter(arrays))
        arrays[name] = ArrayView(change(arrays[name].numpy().copy()))
        return reply

    def fill(value):
        def change(values):
            values[...] = value
            return values
        return change

    def bad(self, message, context):
        client = context.node_config["partition-id"]
        if client == 0:
            raise RuntimeError("out of battery\\non the second line")
        if client == 1:
            return None
        if client == 2:
            time.sleep(600)
        reply = train(self, message, context)
        arrays = reply.content["arrays"]
        if client == 3:
            return first(reply, fill(np.nan))
        if client == 4:
            return first(reply, fill(-np.inf))
        if client == 5:
            return first(reply, lambda values: values[:-1])
        if client == 6:
            arrays["extra"] = ArrayView(np.zeros(3, dtype=np.float32))
        if client == 7:
            del arrays[next(iter(arrays))]
        if client == 8:
            return first(reply, fill(1e30))
        if client == 9:
            return Message(RecordDict(), reply_to=message)
        return reply

    app.ShardClientApp._train = bad
"""

EXPECTED_STATUS = {
    0: "failed: RuntimeError: out of battery on the second line",
    1: "failed: returned None, not a Message",
    2: "failed: no reply within 8 s",
    3: "rejected: update is not finite",
    4: "rejected: update is not finite",
    5: "rejected: array 2.weight has shape [15, 64], needs [16, 64]",
    6: "rejected: arrays do not match the model's, unknown extra",
    7: "rejected: arrays do not match the model's, missing",
    8: "ok",
    9: "rejected: needs one ArrayRecord, got 0",
    10: "ok",
    11: "ok",
}

KILLED_WORKERS = """
def patch(app):
    import os, pathlib, signal, time
    train = app.ShardClientApp._train

    def fatal(self, message, context):
        client = context.node_config["partition-id"]
        server_round = message.content["config"]["server-round"]
        marker = pathlib.Path(__file__).with_name(f"killed-{{server_round}}")
        if client == 3 and server_round in {rounds} and not marker.exists():
            marker.touch()
            time.sleep(0.3)  # the record of the round before is on its way
            os.kill(os.getpid(), signal.{signal})
        if client == 12 and server_round == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return train(self, message, context)

    app.ShardClientApp._train = fatal
"""


def write_lethal_scenario(folder: Path) -> None:
    """One with client 12, which kills every worker that it is given to."""
    text = SCENARIO.replace("honest_majority: 8", "honest_majority: 9")
    (folder / "lethal.yaml").write_text(text.replace("name: small", "name: lethal"))


def clients_of(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "small" / "default" / "seed-0" / "clients.csv")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    write_scenario(folder)
    succeed("run", "scenario.yaml", "--out", "out", cwd=folder)
    return folder / "out"


def test_bad_clients_are_named_and_left_out_the_same_on_both_engines(tmp_path: Path) -> None:
    write_scenario(tmp_path)
    bad = patches(tmp_path, "clients.app", BAD_CLIENTS)
    limits = ("--set", "engine.client_timeout_s=8", "--set", "rounds=1")
    succeed("run", "scenario.yaml", "--out", "inline", *limits, cwd=tmp_path, patches=bad)
    on_ray = ("--engine", "ray", "--workers", 2)
    succeed("run", "scenario.yaml", "--out", "ray", *limits, *on_ray, cwd=tmp_path, patches=bad)
    assert_same_results(tmp_path / "inline", tmp_path / "ray")

    clients = clients_of(tmp_path / "inline")
    for client, expected in EXPECTED_STATUS.items():
        for status in clients.loc[clients["client"] == client, "status"]:
            assert status.startswith(expected), (client, status)
    failed = clients["status"].str.startswith("failed")
    rejected = clients["status"].str.startswith("rejected")
    assert clients.loc[failed, "weight"].isna().all()
    assert (clients.loc[rejected, "weight"] == 0).all()
    assert clients.groupby("round")["weight"].sum().tolist() == pytest.approx([1])


def test_too_few_usable_replies_skip_the_round_or_stop_as_the_scenario_says(
    tmp_path: Path,
) -> None:
    write_scenario(tmp_path)
    bad = patches(tmp_path, "clients.app", BAD_CLIENTS.replace("time.sleep(600)", "return None"))
    krum = "strategy.aggregation={kind: krum, n_malicious: 2}"
    both = "variants={stop: {strategy.on_too_few: stop}, skip: {}}"
    settings = ("--set", krum, "--set", "rounds=1")
    arguments = ("run", "scenario.yaml", "--out", "out", *settings, "--set", both)
    done = run(*arguments, cwd=tmp_path, patches=bad)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("out/small/stop/seed-0: the run failed after round 0: ")
    assert "krum needs n >= 2f + 3 clients, got n=3 and f=2" in line
    assert line.endswith("(with strategy.on_too_few: skip_round the run would go on)")
    rounds = pd.read_csv(tmp_path / "out" / "small" / "skip" / "seed-0" / "rounds.csv")
    assert "krum needs n >= 2f + 3 clients, got n=3 and f=2" in rounds["skipped"].iloc[1]
    assert rounds["loss"].iloc[0] == rounds["loss"].iloc[1]


def test_a_worker_killed_in_mid_round_changes_nothing_and_a_client_that_kills_each_is_given_up(
    undisturbed: Path, tmp_path: Path
) -> None:
    write_scenario(tmp_path)
    write_lethal_scenario(tmp_path)
    killing = KILLED_WORKERS.format(rounds=(2,), signal="SIGTERM")
    fatal = patches(tmp_path, "clients.app", killing)
    how = ("--engine", "ray", "--workers", 2, "--set", "engine.parallel=clients")
    files = ("scenario.yaml", "lethal.yaml")
    process = start("run", *files, "--out", "out", *how, cwd=tmp_path, patches=fatal)
    shown, err = process.communicate(timeout=240)
    assert process.returncode == 0, shown + err
    assert "raylet" not in shown
    assert (fatal / "killed-2").exists()
    assert_same_results(undisturbed / "small", tmp_path / "out" / "small")
    events = (tmp_path / "out" / "small" / "default" / "seed-0" / "events.log").read_text()
    assert "worker lost" in events

    clients = pd.read_csv(tmp_path / "out" / "lethal" / "default" / "seed-0" / "clients.csv")
    bad = clients[clients["status"] != "ok"]
    assert bad[["round", "client", "status"]].values.tolist() == [
        [2, 12, "failed: its worker died 3 times"]
    ]
    assert clients["round"].max() == 4


def test_a_run_whose_workers_die_goes_on_as_long_as_it_makes_progress(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_runs, "ATTEMPTS", 2)  # a worker takes seconds to come up
    write_scenario(tmp_path)
    write_lethal_scenario(tmp_path)
    killing = KILLED_WORKERS.format(rounds=(2, 3), signal="SIGKILL")
    fatal = patches(tmp_path, "clients.app", killing)
    forgetful = "{strategy: {kind: flower, path: 'flwr.serverapp.strategy:FedAvg'}}"
    with (tmp_path / "lethal.yaml").open("a") as file:  # rounds done before are no progress
        file.write(f"variants: {{forgetful: {forgetful}}}")
    how = ("--engine", "ray", "--workers", 1, "--set", "engine.parallel=runs")
    files = ("scenario.yaml", "lethal.yaml")
    done = run("run", *files, "--out", "out", *how, cwd=tmp_path, patches=fatal)
    assert len(list(fatal.glob("killed-*"))) == 2
    assert_same_results(undisturbed / "small", tmp_path / "out" / "small")
    events = (tmp_path / "out" / "small" / "default" / "seed-0" / "events.log").read_text()
    assert events.count("worker lost") == 2

    assert done.returncode == 1
    events = (tmp_path / "out" / "lethal" / "forgetful" / "seed-0" / "events.log").read_text()
    assert events.count("worker lost") == 1
    assert "its worker died 2 times" in events


def wait_for_rounds(process: subprocess.Popen[str], out: Path, count: int) -> None:
    """Wait until the run has written so many rounds, or ended."""
    table = out / "small" / "default" / "seed-0" / "rounds.csv"
    while process.poll() is None:
        if table.exists() and len(table.read_text().splitlines()) > count:
            return
        time.sleep(0.01)


def shared_memory_of(process: subprocess.Popen[str]) -> set[str]:
    """Return the names of the memory that a driver shares with its workers."""
    names = map(target_of, Path(f"/proc/{process.pid}/fd").iterdir())
    return {name for name in names if "memfd:fl-testbed-" in name}


def target_of(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:  # it was closed just now
        return ""


def wait_until_nobody_maps(names: set[str]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        maps = "".join(map(maps_of, Path("/proc").glob("[0-9]*/maps")))
        if not any(name in maps for name in names):
            return
        time.sleep(0.2)
    pytest.fail(f"still mapped: {names}")


def maps_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it ended just now
        return ""


SLOW = """
def patch(run_folder):
    import time
    record = run_folder.RunFolder.record

    def slowly(self, content, **how):
        record(self, content, **how)
        time.sleep(0.2)  # so that it is not done before its killer, who may have to wait for a core

    run_folder.RunFolder.record = slowly
"""


def test_a_killed_driver_of_workers_resumes_to_the_same_bytes_on_another_engine(
    tmp_path: Path,
) -> None:
    write_scenario(tmp_path)
    agnostic = ("--set", "strategy.reweighting={kind: agnostic, step_size: 0.1}")
    arguments = ("run", "scenario.yaml", *agnostic, "--set", "rounds=8")
    succeed(*arguments, "--out", "whole", cwd=tmp_path)
    slow = patches(tmp_path, "fl_testbed.engine.run_folder", SLOW)
    on_ray = ("--engine", "ray", "--workers", 1)
    process = start(*arguments, *on_ray, "--out", "out", cwd=tmp_path, patches=slow)
    wait_for_rounds(process, tmp_path / "out", 4)
    assert process.poll() is None
    shared = shared_memory_of(process)
    assert shared
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    wait_until_nobody_maps(shared)
    succeed(*arguments, "--out", "out", "--resume", cwd=tmp_path)
    assert_same_results(tmp_path / "whole", tmp_path / "out")


KILLED_WHILE_WRITING = """
def patch(run_folder):
    import os, signal
    write_bytes = run_folder.RunFolder.write_bytes

    def torn(self, name, content, *counted_on):
        if name == run_folder.CHECKPOINT and (self.path / name).exists():
            if len((self.path / "rounds.csv").read_text().splitlines()) == 4:
                (self.path / (name + ".partial")).write_bytes(content[: len(content) // 2])
                with (self.path / "clients.csv").open("a") as table:
                    table.write("3,7,hon")
                os.kill(os.getpid(), signal.SIGKILL)
        write_bytes(self, name, content, *counted_on)

    run_folder.RunFolder.write_bytes = torn
"""


def test_a_kill_while_the_checkpoint_is_written_loses_that_round_alone_once_asked_to_go_on(
    undisturbed: Path, tmp_path: Path
) -> None:
    write_scenario(tmp_path)
    torn = patches(tmp_path, "fl_testbed.engine.run_folder", KILLED_WHILE_WRITING)
    killed = start("run", "scenario.yaml", "--out", "out", cwd=tmp_path, patches=torn)
    killed.communicate(timeout=240)
    assert killed.returncode == -signal.SIGKILL
    again = run("run", "scenario.yaml", "--out", "out", cwd=tmp_path)
    assert again.returncode == 2
    assert "holds an unfinished run: add --resume" in again.stderr
    other = run("run", "scenario.yaml", "--out", "out", "--set", "rounds=3", cwd=tmp_path)
    assert other.returncode == 2
    assert "holds a run of another scenario, which differs in rounds: add --redo" in other.stderr
    succeed("run", "scenario.yaml", "--out", "out", "--resume", cwd=tmp_path)
    assert_same_results(undisturbed, tmp_path / "out")


def test_a_run_with_a_damaged_table_is_refused_and_stays_as_it_is(
    undisturbed: Path, tmp_path: Path
) -> None:
    write_scenario(tmp_path)
    shutil.copytree(undisturbed, tmp_path / "out")
    table = tmp_path / "out" / "small" / "default" / "seed-0" / "groups.csv"
    header, row, *rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join([header, "\0" * len(row), *rows]))
    before = {path: path.read_bytes() for path in table.parent.rglob("*.*")}
    longer = ("run", "scenario.yaml", "--out", "out", "--resume", "--set", "rounds=5")
    done = run(*longer, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "out/small/default/seed-0: groups.csv has changed since the run wrote it (see line 2): "
        "remove the folder to run it again\n"
    )
    assert {path: path.read_bytes() for path in table.parent.rglob("*.*")} == before


REMOVED = """
def patch(run_folder):
    import shutil
    record = run_folder.RunFolder.record

    def remove(self, content, **how):
        record(self, content, **how)
        if self.path.parent.name == "gone":
            shutil.rmtree(self.path)

    run_folder.RunFolder.record = remove
"""


def test_a_run_whose_folder_is_removed_stops_at_its_next_round_and_others_go_on(
    tmp_path: Path,
) -> None:
    write_scenario(tmp_path, SCENARIO + "variants: {gone: {}, there: {}}")
    removed = patches(tmp_path, "fl_testbed.engine.run_folder", REMOVED)
    done = run("run", "scenario.yaml", "--out", "out", cwd=tmp_path, patches=removed)
    assert done.returncode == 1
    why = "was removed or moved while the run went on: run it again"
    assert done.stderr == f"out/small/gone/seed-0: {why}\n"
    assert "│ there" in done.stdout
    assert not (tmp_path / "out" / "small" / "gone" / "seed-0").exists()


def test_a_full_disk_ends_the_run_with_a_message_and_a_resume_finishes_it(
    undisturbed: Path, tmp_path: Path
) -> None:
    write_scenario(tmp_path)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs more rights than these")
    try:
        done = run("run", "scenario.yaml", "--out", "disk/out", cwd=tmp_path)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        succeed("run", "scenario.yaml", "--out", "disk/out", "--resume", cwd=tmp_path)
        assert_same_results(undisturbed, disk / "out")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_file_that_may_not_grow_ends_the_run_with_a_message(
    undisturbed: Path, tmp_path: Path
) -> None:
    write_scenario(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, before[1]))
    try:
        limited = run("run", "scenario.yaml", "--out", "out", cwd=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert limited.returncode == 1
    assert "File too large" in limited.stderr
    succeed("run", "scenario.yaml", "--out", "out", "--resume", cwd=tmp_path)
    assert_same_results(undisturbed, tmp_path / "out")


@pytest.mark.parametrize(
    ("engine", "sent"), [("inline", "SIGTERM"), ("ray", "SIGINT"), ("flower", "SIGINT")]
)
def test_a_run_listens_on_loopback_at_most_and_an_interrupt_keeps_its_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, sent: str
) -> None:
    write_scenario(tmp_path, SCENARIO.replace("rounds: 4", "rounds: 400"))
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = ("run", "scenario.yaml", "--out", "out", "--engine", engine, "--workers", 1)
    process = start(*arguments, cwd=tmp_path)
    wait_for_rounds(process, tmp_path / "out", 3)
    family = family_of(process)
    addresses, workers = listened_on_by(family), list(filter(is_worker, family))
    os.killpg(process.pid, signal.Signals[sent])  # as a terminal does: driver and workers alike
    _, err = process.communicate(timeout=60)
    assert bool(addresses) == (engine != "inline")
    assert len(workers) == (engine != "inline")  # as many as were asked for
    assert all(address.is_loopback for address in addresses), addresses
    assert process.returncode == 130
    assert "--resume continues" in err
    assert "Traceback" not in err
    rounds = (tmp_path / "out" / "small" / "default" / "seed-0" / "rounds.csv").read_text()
    assert len(rounds.splitlines()) > 3
    if engine == "ray":
        assert not (tmp_path / ".ray").exists()  # a token there would be for everybody to read


def family_of(process: subprocess.Popen[str]) -> set[psutil.Process]:
    driver = psutil.Process(process.pid)
    return {driver, *driver.children(recursive=True)}


def is_worker(process: psutil.Process) -> bool:
    return process.cmdline()[0].startswith(("ray::_Worker", "ray::ClientAppActor"))


def listened_on_by(family: set[psutil.Process]) -> set[IPv4Address | IPv6Address]:
    """Return the addresses on which a command and its workers listen."""
    pids = {process.pid for process in family}
    return {
        ip_address(socket.laddr.ip.removeprefix("::ffff:"))  # of IPv4, on a socket for both
        for socket in psutil.net_connections("tcp")
        if socket.status == psutil.CONN_LISTEN and socket.pid in pids
    }


def test_many_thousand_clients_cost_no_more_than_those_sampled(tmp_path: Path) -> None:
    text = SCENARIO.replace("honest_majority: 8", "honest_majority: 18800")
    text = text.replace("honest_minority: 2", "honest_minority: 1000, overlap: true")
    text = text.replace("poisoned: 2", "poisoned: 200").replace("rounds: 4", "rounds: 2")
    write_scenario(tmp_path, text)
    succeed(
        "run", "scenario.yaml", "--out", "out", "--set", "sampling.fraction=0.005", cwd=tmp_path
    )
    clients = clients_of(tmp_path / "out")
    assert clients.groupby("round")["client"].nunique().tolist() == [100, 100]
    assert (clients["status"] == "ok").all()
    summary = json.loads(
        (tmp_path / "out" / "small" / "default" / "seed-0" / "summary.json").read_text()
    )
    assert summary["suppression"]["honest_majority"]["weight_ratio"] == pytest.approx(1)
