"""The same apps on Flower's stock simulation engine: a check on ours, and its benchmark.

Flower shows the server random node ids and no partition ids, pickles the ClientApp for every
message, and fixes no order of replies. So nodes are asked for their partitions, the app that is
sent is a mere name that each worker process resolves once, and results equal those of our engine
only up to the order of sums.
"""

import logging
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Event, Thread, current_thread
from time import monotonic
from typing import Any

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from ray import cloudpickle

from fl_testbed.data import Dataset
from fl_testbed.engine.assembly import build_client_app, build_federation
from fl_testbed.engine.client_work import Outcome, Task, attempt
from fl_testbed.engine.datasets import load_dataset
from fl_testbed.engine.errors import PoolError
from fl_testbed.engine.flower_internals import quiet_flower
from fl_testbed.engine.grid import CLIENT_FAILED, ClientGrid
from fl_testbed.engine.local_ray import cores_allotted, ray_to_itself, sigterm_interrupts
from fl_testbed.engine.rounds import Run
from fl_testbed.engine.run_writer import RunWriter
from fl_testbed.engine.threads import limit_threads
from fl_testbed.scenario import Scenario

REGISTRATION_TIMEOUT_S = 300.0  # the first nodes to answer import torch
PULL_INTERVAL_S = 0.1  # between two polls for answers


class NamedClientApp(ClientApp):
    """Stands for a scenario's ClientApp, which is built once in each process.

    It goes with every message: little more than the scenario, but with ``init`` a whole model.
    """

    def __init__(self, scenario: Scenario, data_dir: Path | None) -> None:
        super().__init__()
        # Pickled now, before the user's own code changes anything on the server.
        content = cloudpickle.dumps(scenario)  # pyright: ignore[reportPrivateImportUsage]
        self._content, self._data_dir = content, data_dir

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message as the scenario's app does."""
        return answer(pickle.loads(self._content), self._data_dir, message, context)


def answer(
    scenario: Scenario, data_dir: Path | None, message: Message, context: Context
) -> Message:
    """Answer a message as the scenario's app does, or with an error that says why not: Flower sets
    an app no time limit, and would report an exception as a whole traceback."""
    app, kept = app_of(scenario, data_dir), RecordDict(dict(context.state))
    reply = attempt(lambda: app(message, context), scenario.engine.client_timeout_s)
    if isinstance(reply, Message):
        return reply
    context.state = kept  # what a failing client put there is dropped
    reason = reply if isinstance(reply, str) else f"returned {reply!r}, not a Message"
    return Message(Error(CLIENT_FAILED, reason), reply_to=message)


_APPS: dict[str, ClientApp] = {}  # the last one of this process


def app_of(scenario: Scenario, data_dir: Path | None) -> ClientApp:
    """Return a scenario's ClientApp, built once in each process: runs follow one another."""
    name = scenario.model_dump_json()
    if name not in _APPS:
        _APPS.clear()  # with its data
        limit_threads(scenario.torch_threads)
        federation = build_federation(scenario, load_dataset(scenario, data_dir))
        _APPS[name] = build_client_app(scenario, federation)
    return _APPS[name]


class FlowerGrid(ClientGrid):
    """Lets strategies address clients by their ids, and talks to Flower's nodes.

    Args:
        grid: Flower's.
        n_clients: How many nodes to wait for.
        client_timeout_s: Time limit of one client.
        label: Records to add to each message, for a ClientApp that serves several scenarios.
        stopped: Once set, waiting for nodes ends with a KeyboardInterrupt.
    """

    def __init__(
        self,
        grid: Grid,
        n_clients: int,
        client_timeout_s: float,
        label: dict[str, ConfigRecord] | None = None,
        stopped: Event | None = None,
    ) -> None:
        super().__init__()
        self._label, self._stopped = label or {}, stopped or Event()
        self._grid, self._timeout_s = grid, client_timeout_s
        self._node_of = self._ask_nodes(n_clients)
        self._client_of = {node: client for client, node in self._node_of.items()}

    def execute(self, content: RecordDict, tasks: list[Task]) -> Iterator[Outcome]:
        """Send the tasks to their nodes and yield what comes back within the time limit."""
        content = RecordDict({**content, **self._label})
        messages = [
            Message(content, self._node_of[t.metadata.dst_node_id], t.metadata.message_type)
            for t in tasks
        ]
        timeout_s = self._timeout_s * len(messages)
        for reply in self._replies(messages, timeout_s):
            client = self._client_of[reply.metadata.src_node_id]
            if reply.has_error():
                reason = str(reply.error.reason).partition("\n")[0]  # Ray's has many lines
                yield Outcome(client, None, reason, RecordDict())
            else:
                yield Outcome(client, reply.content, "", RecordDict())

    def _replies(self, messages: Iterable[Message], timeout_s: float) -> Iterator[Message]:
        """Send messages and yield what comes back within the time limit."""
        deadline = monotonic() + timeout_s
        waiting = set(self._grid.push_messages(messages))
        while waiting and monotonic() < deadline:
            for reply in self._grid.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                yield reply
            if waiting:
                self._wait()

    def _wait(self) -> None:
        if self._stopped.wait(PULL_INTERVAL_S):
            raise KeyboardInterrupt

    def _ask_nodes(self, n_clients: int) -> dict[int, int]:
        """Map client ids to node ids.

        Raises:
            PoolError: If not all nodes register in time.
            RuntimeError: If a node does not say who it is, for instance because its ClientApp
                cannot be built.
        """
        deadline = monotonic() + REGISTRATION_TIMEOUT_S
        while len(nodes := list(self._grid.get_node_ids())) < n_clients:
            if monotonic() > deadline:
                text = f"{len(nodes)} of {n_clients} Flower nodes registered"
                raise PoolError(f"only {text} within {REGISTRATION_TIMEOUT_S:g} s")
            self._wait()
        messages = [Message(RecordDict(), node, "query") for node in nodes]
        replies = list(self._replies(messages, REGISTRATION_TIMEOUT_S))
        reasons = [str(reply.error.reason) for reply in replies if reply.has_error()]
        if reasons:  # no PoolError: other runs may succeed
            text = f"{len(reasons)} of {n_clients} Flower nodes failed before the first round"
            last_line = reasons[0].rstrip().splitlines()[-1:]  # the others are a traceback
            raise RuntimeError(": ".join([text, *last_line]))
        node_of = {
            int(reply.content.metric_records["metrics"]["partition-id"]): reply.metadata.src_node_id  # pyright: ignore[reportArgumentType]
            for reply in replies
        }
        if set(node_of) != set(range(n_clients)):
            raise PoolError(f"only {len(node_of)} of {n_clients} Flower nodes told their client id")
        return node_of


def run_on_nodes(
    writer: RunWriter,
    scenario: Scenario,
    dataset: Dataset,
    grid: Grid,
    label: dict[str, ConfigRecord] | None = None,
    stopped: Event | None = None,
) -> None:
    """Run one scenario on the nodes of a ServerApp's grid; ``label`` and ``stopped`` are as for
    :class:`FlowerGrid`."""
    federation = build_federation(scenario, dataset)
    timeout_s = scenario.engine.client_timeout_s
    clients = FlowerGrid(grid, len(federation.population), timeout_s, label, stopped)
    writer.write(Run(scenario, federation, clients).rounds(*writer.begin(dataset)))


def run_on_flower(
    writer: RunWriter, scenario: Scenario, dataset: Dataset, data_dir: Path | None
) -> None:
    """Run one scenario on Flower's simulation engine."""
    server = ServerApp()
    faults: list[BaseException] = []
    stopped, threads = Event(), list[Thread]()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        threads.append(current_thread())
        # Flower only logs what a ServerApp raises: keep it for the caller.
        try:
            run_on_nodes(writer, scenario, dataset, grid, stopped=stopped)
        except BaseException as fault:
            faults.append(fault)

    quiet_flower()
    ray_arguments: dict[str, Any] = {
        "address": "local",  # else Ray joins any cluster it finds, even a dead one
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "num_cpus": scenario.engine.n_workers or cores_allotted(),  # each client takes one
    }
    with ray_to_itself([scenario]), sigterm_interrupts():
        try:
            run_simulation(
                server_app=server,
                client_app=NamedClientApp(scenario, data_dir),
                num_supernodes=len(scenario.clients.population),
                backend_config={
                    "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                    "init_args": ray_arguments,
                },
            )
        except RuntimeError as fault:  # Flower's; what went wrong is its cause
            cause: BaseException = fault
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise cause from None
        finally:  # after a Ctrl-C the server would wait for nodes that are gone
            stopped.set()
            for thread in threads:
                thread.join()
    if faults:
        raise faults[0]
