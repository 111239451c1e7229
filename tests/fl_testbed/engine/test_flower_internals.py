"""What we take of Flower beyond its public API does what we take it for."""

import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from flwr.supercore import telemetry

import clients
import fl_testbed
import strategies
from fl_testbed.engine.flower_internals import quiet_flower


def test_flower_tells_nobody_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    monkeypatch.setattr(telemetry, "FLWR_TELEMETRY_ENABLED", "1")  # as Flower is imported
    sent: list[urllib.request.Request] = []

    def send(request: urllib.request.Request, timeout: float) -> None:
        sent.append(request)
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", send)
    telemetry.create_event(telemetry.EventType.RUN_SUPERLINK_ENTER, None)
    assert len(sent) == 1  # the function that sends is still this one
    quiet_flower()
    telemetry.create_event(telemetry.EventType.RUN_SUPERLINK_ENTER, None)
    assert len(sent) == 1


def test_no_other_module_takes_more_than_flowers_public_api() -> None:
    within = re.compile(
        r"^\s*(?:from|import) flwr\.(?!(?:app|clientapp|serverapp|simulation)\b)", re.M
    )
    packages = (Path(package.__path__[0]) for package in (clients, fl_testbed, strategies))
    files = (file for package in packages for file in package.rglob("*.py"))
    assert [f.name for f in files if within.search(f.read_text())] == ["flower_internals.py"]
