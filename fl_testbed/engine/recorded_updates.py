"""Replies that a run records, and what another strategy makes of the very same replies.

What is recorded is what the strategy received, forged updates included: so a replay goes through
all of the strategy's own checks, and a replay of the run's own rule repeats what it did.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from fl_testbed.data import DataError, Federation
from fl_testbed.engine.assembly import build_strategy
from fl_testbed.engine.client_work import Outcome, Task
from fl_testbed.engine.flower_internals import become_server
from fl_testbed.engine.grid import ClientGrid
from fl_testbed.engine.models import buffers_of, outlined_model
from fl_testbed.engine.run_folder import updates_file
from fl_testbed.engine.threads import limit_threads
from fl_testbed.metrics import read_table
from fl_testbed.scenario import Scenario
from strategies.flower_arrays import (
    Layout,
    UnusableReplyError,
    only_arrays,
    record_of,
    records_in,
    state_dict_of,
)
from strategies.ledger import ClientEntry, RoundLedger
from strategies.reports import metrics_in

DType = Literal["float16", "float32"]
ARRAYS, METRICS = "arrays", "metrics"
REMEDY = "remove the folder to run it again"
NO_ARRAYS = "needs one ArrayRecord, got 0"  # a strategy's complaint of unrecorded arrays


class Recorder:
    """Records a round's replies while they pass.

    float32 records what clients sent. float16 records updates, each scaled by a power of two so
    that none overflows or vanishes, and *replaces* what clients sent by what it recorded, as if
    they had sent half precision. So with either, the strategy sees what a replay will see.

    Args:
        dtype: ``float16`` or ``float32``.
        start: The model that clients were sent.
    """

    def __init__(self, dtype: DType, start: ArrayRecord) -> None:
        self._dtype, self._start, self._layout = dtype, start, Layout.of(start)
        self._flat = self._layout.flattened(start)
        self._clients: dict[int, dict[str, Any]] = {}
        self._rows: dict[int, np.ndarray] = {}

    def passing(self, replies: Iterable[Message]) -> Iterator[Message]:
        """Yield replies, and record them."""
        for reply in replies:
            yield self._kept(reply)

    def content(self) -> bytes:
        """Return the round as a safetensors file: replies by client id, and the model sent."""
        order = sorted(self._clients)
        tensors = {f"start/{name}": value for name, value in state_dict_of(self._start).items()}
        rows = [self._rows[client] for client in order if client in self._rows]
        size = self._layout.size
        stacked = np.stack(rows) if rows else np.empty((0, size), dtype=self._dtype)
        tensors["rows"] = torch.from_numpy(stacked)
        replies = [{"client": client, **self._clients[client]} for client in order]
        slices = {name: [at.start, at.stop] for name, (_, at) in self._layout.pieces.items()}
        names = list(self._start)  # in order, which safetensors does not keep
        round_ = {"replies": replies, "names": names, "slices": slices}
        # A single entry: safetensors writes several in random order, so that bytes would differ.
        return save(tensors, {"round": json.dumps(round_)})

    def _kept(self, reply: Message) -> Message:
        client = reply.metadata.src_node_id
        if reply.has_error():
            self._clients[client] = {"error": str(reply.error.reason)}
            return reply
        kept: dict[str, Any] = {"metrics": dict(metrics_in(reply.content))}
        self._clients[client] = kept
        try:
            row = self._layout.flattened(only_arrays(reply.content))
        except UnusableReplyError as fault:
            kept["complaint"] = str(fault)  # it will be rejected, now and in a replay
            return reply
        kept["has_row"] = True
        if self._dtype == "float32":
            self._rows[client] = row
            return reply
        with np.errstate(over="ignore", invalid="ignore"):
            halves, kept["exponent"] = halved(row - self._flat)
        self._rows[client] = halves
        sent = restored(self._flat, halves, kept["exponent"])
        name = next(iter(records_in(reply.content, ArrayRecord)))
        reply.content[name] = self._layout.read_flat(sent, self._start)
        return reply


def halved(update: np.ndarray) -> tuple[np.ndarray, int]:
    """Return an update in half precision and the power of two that it was divided by."""
    largest = float(np.abs(update).max(initial=0.0))
    exponent = int(np.frexp(largest)[1]) if 0 < largest < np.inf else 0
    return np.ldexp(update, -exponent).astype(np.float16), exponent


def restored(start: np.ndarray, halves: np.ndarray, exponent: int) -> np.ndarray:
    """Return the parameters that a client sent, from its update in half precision."""
    return start + np.ldexp(halves.astype(np.float32), exponent)


def recorded_bytes(scenario: Scenario, n_parameters: int) -> int:
    """Return the bytes that a run records on disk: all replies and the models they answer."""
    if scenario.record_updates is None:
        return 0
    width = np.dtype(scenario.record_updates.dtype).itemsize
    return scenario.rounds * n_parameters * (scenario.n_sampled * width + 4)


class Recorded:
    """One round as recorded.

    Raises:
        DataError: If the file is damaged or no recorded round.
    """

    def __init__(self, file: Path) -> None:
        try:
            with safe_open(file, framework="pt") as opened:
                round_ = json.loads(opened.metadata()["round"])
            tensors = load_file(file)
        except (SafetensorError, TypeError, KeyError, ValueError) as fault:  # not ours, or damaged
            raise DataError(f"{file.name} is not a recorded round ({fault}): {REMEDY}") from None
        self.start = record_of({name: tensors[f"start/{name}"].numpy() for name in round_["names"]})
        self.replies = {reply["client"]: reply for reply in round_["replies"]}
        rows = iter(tensors["rows"].numpy())
        self._rows = {c: next(rows) for c, r in self.replies.items() if r.get("has_row")}
        self._layout = Layout.of(self.start)
        self._flat = self._layout.flattened(self.start)

    def outcome(self, client: int) -> Outcome:
        """Return a client's recorded answer."""
        reply = self.replies[client]
        if "error" in reply:
            return Outcome(client, None, reply["error"], RecordDict())
        content = RecordDict({METRICS: MetricRecord(reply["metrics"])})
        if client in self._rows:
            content[ARRAYS] = self._layout.read_flat(self._sent(client), self.start)
        return Outcome(client, content, "", RecordDict())

    def _sent(self, client: int) -> np.ndarray:
        row = self._rows[client]
        halves = row.dtype == np.float16
        return restored(self._flat, row, self.replies[client]["exponent"]) if halves else row

    def updates(self) -> dict[int, np.ndarray]:
        """Return the flat float32 update of each client that sent one, by client id."""
        return {client: self._sent(client) - self._flat for client in self._rows}

    def restore_complaint(self, entry: ClientEntry) -> None:
        """Put the original complaint about unusable arrays, which were not recorded, into the
        ledger's entry."""
        complaint = self.replies.get(entry.client, {}).get("complaint", NO_ARRAYS)
        entry.status = entry.status.replace(NO_ARRAYS, complaint)


class ReplayGrid(ClientGrid):
    """Clients that give their recorded answers again."""

    def __init__(self) -> None:
        super().__init__()
        become_server()
        self.recorded: Recorded | None = None

    def execute(self, content: RecordDict, tasks: list[Task]) -> Iterator[Outcome]:
        """Yield the recorded answers."""
        assert self.recorded is not None
        for task in tasks:
            client = task.metadata.dst_node_id
            if client in self.recorded.replies:
                yield self.recorded.outcome(client)


def replayed(folder: Path, scenario: Scenario, federation: Federation) -> Iterator[RoundLedger]:
    """Yield the ledger of what the scenario's strategy makes of each recorded round.

    Every round starts from the model that the run had then: whom the replayed strategy hears does
    not change what clients are sent next. Its memory from round to round is its own.

    Args:
        folder: The folder of the run that recorded its updates.
        scenario: The run's scenario, perhaps with another strategy.
        federation: The run's federation.

    Raises:
        DataError: If a round's file is missing or damaged, or ``clients.csv`` is.
    """
    limit_threads(scenario.torch_threads)
    grid = ReplayGrid()  # first: it makes this process Flower's server, and Flower's log quiet
    buffers = buffers_of(outlined_model(scenario, federation.dataset))
    strategy = build_strategy(scenario, federation, buffers)
    try:
        clients = read_table(folder / "clients.csv", {"round": int, "client": int})
    except ValueError as fault:
        raise DataError(f"clients.csv is not what a run writes ({fault}): {REMEDY}") from None
    for round_ in range(1, scenario.rounds + 1):
        file = folder / updates_file(round_)
        if not file.exists():
            raise DataError(f"{file.name} is missing: {REMEDY}")
        recorded = grid.recorded = Recorded(file)
        asked = clients.loc[clients["round"] == round_, "client"]
        grid.sample = sorted({*asked, *recorded.replies})  # some clients may never have answered
        messages = strategy.configure_train(round_, recorded.start, ConfigRecord(), grid)
        strategy.aggregate_train(round_, grid.send_and_receive(messages))
        ledger = strategy.ledger
        assert ledger is not None
        for entry in ledger.clients:
            recorded.restore_complaint(entry)
        yield ledger
