"""Clients in this process, one after the other: no worker, no port, no Ray."""

from collections.abc import Iterator

from flwr.app import RecordDict
from flwr.clientapp import ClientApp

from fl_testbed.engine.client_work import Outcome, Task, cohort_size, run_chunk
from fl_testbed.engine.flower_internals import become_server
from fl_testbed.engine.grid import ClientGrid


class InlineGrid(ClientGrid):
    """Runs every client in this process."""

    def __init__(self, app: ClientApp, client_timeout_s: float) -> None:
        super().__init__()
        become_server()
        self._app, self._client_timeout_s = app, client_timeout_s

    def execute(self, content: RecordDict, tasks: list[Task]) -> Iterator[Outcome]:
        """Run the tasks in the order given."""
        while tasks:
            size = cohort_size(self._app)  # asked again: it shrinks when memory runs short
            yield from run_chunk(self._app, content, tasks[:size], self._client_timeout_s)
            tasks = tasks[size:]
