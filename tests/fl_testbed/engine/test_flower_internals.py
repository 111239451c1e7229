"""What we take of Flower beyond its public API does what we take it for."""

import logging
import re
import urllib.error
import urllib.request
from pathlib import Path
from queue import Queue
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.common.logger import log
from flwr.server.superlink.fleet.vce import vce_api
from flwr.supercore import telemetry

import clients
import fl_testbed
import strategies
from fl_testbed.engine.flower_internals import become_server, quiet_flower


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


def test_a_clients_stack_is_not_logged_and_other_errors_are(caplog: Any) -> None:
    class Failing:
        def process_message(self, message: Message, context: object) -> None:
            stop.set()
            raise ArithmeticError("no median of nothing")

    become_server()
    stop, asked, answered = Event(), Queue[Message](), Queue[Message]()
    asked.put(Message(RecordDict(), 1, "train"))
    nodes = {1: SimpleNamespace(retrieve_context=lambda run_id: None)}
    metrics = SimpleNamespace(add_clientapp_runtime=lambda seconds: None)
    vce_api.worker(asked, answered, nodes, Failing(), stop, metrics)  # pyright: ignore
    log(logging.ERROR, "something else")
    assert "no median of nothing" in answered.get().error.reason
    assert caplog.messages == ["something else"]


def test_no_other_module_takes_more_than_flowers_public_api() -> None:
    within = re.compile(
        r"^\s*(?:from|import) flwr\.(?!(?:app|clientapp|serverapp|simulation)\b)", re.M
    )
    packages = (Path(package.__path__[0]) for package in (clients, fl_testbed, strategies))
    files = (file for package in packages for file in package.rglob("*.py"))
    assert [f.name for f in files if within.search(f.read_text())] == ["flower_internals.py"]
