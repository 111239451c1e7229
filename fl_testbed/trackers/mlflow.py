"""Runs in MLflow: a sweep is an experiment, a variant with a seed one of its runs."""

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from fl_testbed.engine.errors import TrackerError
from fl_testbed.engine.options import StartTracker
from fl_testbed.engine.ownership import in_turn
from fl_testbed.report.results import numbers
from fl_testbed.scenario import AnyScenario
from fl_testbed.scenario.leaves import leaves
from fl_testbed.trackers import finite, round_figures

FOLDER = "fl_testbed.folder"  # the tag by which a resumed run is found again
MOST_PARAMS = 100  # in one request: MLflow's limit
LONGEST_PARAM = 6000  # characters


def connect(out: Path) -> StartTracker:
    """Return the function that begins to track a run, on the server in ``MLFLOW_TRACKING_URI``.

    Args:
        out: Where run folders go; if no server is set, runs are kept in ``mlflow.db`` there.

    Raises:
        TrackerError: If the server does not answer.
    """
    # By default MLflow holds up a run for minutes when its server has gone.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    with ExitStack() as held, _as_tracker_error():
        if not uri:
            held.enter_context(in_turn(out))  # two commands cannot create it at once
            file = (out / "mlflow.db").resolve()
            if not file.exists():  # one half made, on a full disk, would be useless
                held.push(lambda fault, *_: file.unlink(missing_ok=True) if fault else None)
            uri = f"sqlite:///{file}"
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return lambda scenario, folder, done: MlflowRun(client, scenario, folder, done)


class MlflowRun:
    """One run's parameters and metrics."""

    def __init__(
        self, client: MlflowClient, scenario: AnyScenario, folder: Path, done: int
    ) -> None:
        self._client, self._last = client, scenario.rounds
        with _as_tracker_error():
            experiment = _experiment(client, scenario.name)
            place = folder.resolve().as_uri()
            begun = client.search_runs(
                [experiment],
                f"tags.`{FOLDER}` = '{place}'",
                max_results=1,
                order_by=["attributes.start_time DESC"],
            )
            if begun and done >= 0:
                self._run = begun[0].info.run_id
                client.set_terminated(self._run, "RUNNING")
                return
            name = f"{scenario.variant} seed {scenario.seed}"
            run = client.create_run(experiment, tags={FOLDER: place}, run_name=name)
            self._run = run.info.run_id
            params = [
                Param(_name(key), str(value)[:LONGEST_PARAM])
                for key, value in leaves(scenario.model_dump(mode="json"))
            ]
            for first in range(0, len(params), MOST_PARAMS):
                client.log_batch(self._run, params=params[first : first + MOST_PARAMS])

    def round(self, round_: int, tables: Mapping[str, pd.DataFrame]) -> None:
        """Send a round's figures."""
        self._send(round_figures(tables), round_)

    def done(self, summary: Mapping[str, Any]) -> None:
        """Send the summary's numbers, and mark the run as finished."""
        values = {f"summary.{key}": value for key, value in numbers(summary).items()}
        self._send(finite(values), self._last)
        self._end("FINISHED")

    def failed(self, reason: str) -> None:
        """Mark the run as failed, and say why."""
        with _as_tracker_error():
            self._client.set_tag(self._run, "fl_testbed.failure", reason)
        self._end("FAILED")

    def _send(self, figures: Mapping[str, float], step: int) -> None:
        now = time.time_ns() // 1_000_000
        metrics = [Metric(_name(key), value, now, step) for key, value in figures.items()]
        if metrics:
            with _as_tracker_error():
                self._client.log_batch(self._run, metrics=metrics)

    def _end(self, status: str) -> None:
        with _as_tracker_error():
            self._client.set_terminated(self._run, status)


def _experiment(client: MlflowClient, name: str) -> str:
    """Return the id of a sweep's experiment; create it if it does not exist."""
    there = client.get_experiment_by_name(name)
    if there is None:
        try:
            return client.create_experiment(name)
        except MlflowException:
            there = client.get_experiment_by_name(name)  # another command has made it meanwhile
            if there is None:
                raise
    return there.experiment_id


@contextmanager
def _as_tracker_error() -> Iterator[None]:
    try:
        yield
    except (MlflowException, SQLAlchemyError) as fault:  # SQLAlchemy's, from creating a database
        text, _, _ = str(fault).partition("\n[SQL: ")
        raise TrackerError(f"MLflow: {' '.join(text.split())}") from fault


def _name(key: str) -> str:
    """Return a name that MLflow accepts."""
    return re.sub(r"[^\w./ -]", "_", key)
