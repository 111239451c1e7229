"""What keeps others out of a local Ray cluster, and lets signals end it as a whole."""

import os
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import ray

from fl_testbed.engine import local_ray
from fl_testbed.engine.errors import PoolError
from fl_testbed.engine.local_ray import (
    cores_allotted,
    ctrl_c_waits,
    keep_others_out,
    ray_to_itself,
    refuse_other_code,
    sigterm_interrupts,
)


@pytest.fixture
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has no token yet, for the time of a test."""
    monkeypatch.setattr(local_ray, "_own_token", cache(local_ray._own_token.__wrapped__))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH_")}
    monkeypatch.setattr(os, "environ", environment)


@pytest.mark.usefixtures("asked_anew")
def test_a_users_own_token_stays_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("theirs")
    keep_others_out()
    assert "RAY_AUTH_TOKEN" not in os.environ


@pytest.mark.usefixtures("asked_anew")
def test_a_user_without_a_home_has_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    keep_others_out()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


@pytest.mark.usefixtures("asked_anew")
def test_all_clusters_of_a_process_have_the_token_that_ray_has_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    keep_others_out()
    token = os.environ.pop("RAY_AUTH_TOKEN")
    assert len(token) == 64
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("somebody's, written in the meantime")
    keep_others_out()
    assert os.environ.pop("RAY_AUTH_TOKEN") == token


@pytest.mark.usefixtures("asked_anew")
def test_ray_is_told_to_ask_for_a_token_unless_it_has_begun_not_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", sys)
    keep_others_out()
    assert "RAY_AUTH_MODE" not in os.environ
    monkeypatch.delitem(sys.modules, "ray")
    keep_others_out()
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_another_package_of_our_name_where_the_command_starts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_other_code()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clients").mkdir()
    refuse_other_code()
    (tmp_path / "clients" / "__init__.py").touch()
    with pytest.raises(PoolError, match=r"would run \S*/clients/__init__.py in place of"):
        refuse_other_code()


@pytest.fixture
def ctrl_c_raises() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("times", "done"), [(1, True), (2, False)])
@pytest.mark.usefixtures("ctrl_c_raises")
def test_a_ctrl_c_waits_and_a_second_one_does_not(times: int, done: bool) -> None:
    ends = []

    @ctrl_c_waits()
    def start() -> None:
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        ends.append(True)

    with pytest.raises(KeyboardInterrupt):
        start()
    assert bool(ends) == done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("ctrl_c_raises")
def test_a_second_ctrl_c_waits_until_ray_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    def shutdown() -> None:
        signal.raise_signal(signal.SIGINT)
        ended.append(True)

    monkeypatch.setattr(ray, "shutdown", shutdown)
    with pytest.raises(KeyboardInterrupt), ray_to_itself([]):
        raise KeyboardInterrupt
    assert ended


@pytest.mark.usefixtures("ctrl_c_raises")
def test_who_does_not_hear_a_ctrl_c_does_not_hear_it_then() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with ctrl_c_waits():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("code", "error"), [(int(signal.SIGTERM), KeyboardInterrupt), (1, SystemExit)]
)
def test_a_sigterm_is_a_ctrl_c_whatever_ray_makes_of_it(
    code: int, error: type[BaseException]
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    @sigterm_interrupts()
    def start() -> None:
        signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(code))  # as Ray does
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(error):
        start()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system allots no cores")
def test_a_cluster_takes_no_more_cores_than_a_scheduler_allots() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores_allotted() == (1 if os.cpu_count() != 1 else None)
    finally:
        os.sched_setaffinity(0, before)
