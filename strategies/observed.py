"""Any Flower strategy, watched from outside to infer whom it heard."""

import gc
import logging
import math
import random
import traceback
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from copy import copy, deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from strategies.aggregation.aggregate import dot_products
from strategies.flower_arrays import (
    Layout,
    UnusableReplyError,
    batch_norm_statistics,
    only_arrays,
    plain,
    without_views,
)
from strategies.inferred_weights import inferred_weights
from strategies.ledger import LOG, NO_REPLY, OK, ClientEntry, RoundLedger
from strategies.memory import can_go_on
from strategies.randomness import Purpose, generator
from strategies.reports import metrics_in, number_in
from strategies.shapes import Tensor
from strategies.update_rows import HostRows


class Observed(Strategy):
    """Passes everything on to another strategy, and keeps a ledger of what that strategy did.

    The other strategy runs unchanged: it gets the messages that it would get anyway, in the order
    of node ids, and its result is returned. Weights are inferred from the updates and the step, see
    :mod:`strategies.inferred_weights`; the round's residual says how well they explain it.

    Args:
        strategy: The strategy to watch.
        weight_by: The weights that clients would have without defence: equal ones (``clients``) or
            by the number of examples they claim (``examples``), as in Flower's own strategies.
        leave_one_out: Whether to aggregate again, in a copy of the strategy, without each client in
            turn: n more aggregations in a round.
        seed: Seeds, for each round, the global generators that the strategy may draw from. By
            default they are left alone.
        buffers: Names of the model's arrays that are not parameters, as in :class:`RobustFedAvg`.
            The strategy gets them; weights are inferred without them.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        weight_by: Literal["clients", "examples"] = "examples",
        leave_one_out: bool = False,
        seed: int | None = None,
        buffers: Collection[str] | None = None,
    ) -> None:
        self.strategy, self.weight_by, self.leave_one_out = strategy, weight_by, leave_one_out
        self.seed = seed
        self.ledger: RoundLedger | None = None
        """The last round's ledger."""
        self._buffers = None if buffers is None else frozenset(buffers)
        self._arrays, self._layout = ArrayRecord(), Layout.of({})
        self._asked: list[int] = []
        self._unasked = ""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy address clients; sort its messages by node id.

        If it raises, the round is skipped: nobody is addressed, and the ledger will say why.
        """
        self._arrays, self._unasked = arrays, ""
        if self._buffers is None:
            self._buffers = batch_norm_statistics(arrays)
        layout = Layout.of(arrays, self._buffers)
        # A batch counter that Flower's strategies average comes back as floats: still no parameter.
        self._buffers |= set(layout.names) - set(layout.pieces)
        self._layout = Layout.of(arrays, self._buffers)
        self._seed(server_round)
        messages: list[Message] = []
        try:
            asked = self.strategy.configure_train(server_round, plain(arrays), config, grid)
            messages = sorted(asked, key=lambda message: message.metadata.dst_node_id)
        except Exception as fault:  # somebody else's code may raise anything
            self._unasked = self._described(fault)
        self._asked = [message.metadata.dst_node_id for message in messages]
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Let the strategy aggregate, and infer what it did.

        If it raises, or returns something that is no such model, the model stays as it is and the
        ledger says why.
        """
        ledger = self.ledger = RoundLedger(server_round)
        if self._unasked:
            ledger.skip(self._unasked)
            return None, None
        answers = sorted(replies, key=lambda reply: reply.metadata.src_node_id)
        start, updates, measured = self._read(answers, ledger)
        arrays = metrics = step = None
        with _older_objects_spared():
            without = self._without_each(server_round, answers, start) if self.leave_one_out else {}
            copies = _copied(answers)
            self._seed(server_round)
            try:
                with _warnings_noted() as warnings:
                    arrays, metrics = self.strategy.aggregate_train(server_round, copies)
                step = None if arrays is None else self._step(arrays, start)
                reason = ": ".join(["the strategy returned no model", *warnings])
            except Exception as fault:
                reason = self._described(fault)
        if step is None:
            ledger.skip(reason)
            for entry in measured:
                entry.weight = 0.0
            return None, metrics
        self._infer(ledger, updates, measured, step)
        for entry in measured:
            if entry.client in without:
                entry.influence = _distance(step, without[entry.client])
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Pass the call on."""
        return self.strategy.configure_evaluate(server_round, plain(arrays), config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Pass the call on."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Log which strategy is watched, then that strategy's own summary."""
        LOG.info("\t├──> Observed: %s", type(self.strategy).__name__)
        self.strategy.summary()

    def keeps_running_sum(self, n_clients: int, n_parameters: int) -> bool:
        """Return False: all updates are kept, to be compared with the step."""
        return False

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the strategy carries from round to round; empty if it cannot save that."""
        strategy: Any = self.strategy
        return strategy.state_dict() if can_go_on(strategy) else {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned."""
        strategy: Any = self.strategy
        if not can_go_on(strategy):
            name = type(strategy).__name__
            raise TypeError(
                f"{name} lacks state_dict or load_state_dict: it cannot go on within a run"
            )
        strategy.load_state_dict(state)

    def _described(self, fault: Exception) -> str:
        """Describe an exception that the strategy raised, and in which line."""
        # By module name, not file: for a class that was sent by value no module can be looked up.
        module = type(self.strategy).__module__
        lines = [
            f" ({Path(frame.f_code.co_filename).name}:{line})"
            for frame, line in traceback.walk_tb(fault.__traceback__)
            if frame.f_globals.get("__name__") == module
        ]
        return " ".join(f"{type(fault).__name__}: {fault}".split()) + "".join(lines[-1:])

    def _read(
        self, answers: list[Message], ledger: RoundLedger
    ) -> tuple[np.ndarray, Tensor, list[ClientEntry]]:
        """Copy the updates, since a strategy may overwrite them; return the global parameters, the
        matrix of updates, and the ledger entry of each of its rows."""
        layout = self._layout
        start = layout.flattened(self._arrays)
        entries = {client: ClientEntry(client, NO_REPLY) for client in self._asked}
        ledger.clients = list(entries.values())
        matrix = torch.empty(len(answers), layout.size)
        rows = HostRows(layout, matrix, start)
        measured: list[ClientEntry] = []
        for reply in answers:
            entry = entries.get(reply.metadata.src_node_id)
            if entry is None:
                continue
            if reply.has_error():
                entry.status = f"failed: {reply.error.reason}"
                continue
            metrics = metrics_in(reply.content)
            claimed = number_in(metrics, "num-examples", 0.0)
            entry.n_examples = int(claimed) if 0 <= claimed < math.inf else 0
            entry.train_loss = number_in(metrics, "train-loss", math.nan)
            try:
                rows.write(len(measured), only_arrays(reply.content))
                entry.update_norm = rows.norms()[len(measured)]
                if not math.isfinite(entry.update_norm):
                    raise UnusableReplyError("update is not finite")
            except UnusableReplyError as fault:
                entry.status = f"unmeasured: {fault}"  # the strategy gets it all the same
                continue
            entry.status = OK
            measured.append(entry)
        ledger.set_priors(self.weight_by)
        return start, matrix[: len(measured), : layout.n_parameters], measured

    def _infer(
        self, ledger: RoundLedger, updates: Tensor, measured: list[ClientEntry], step: Tensor
    ) -> None:
        inferred = inferred_weights(updates, step)
        ledger.residual = inferred.residual
        if math.isnan(inferred.residual) and not step.isfinite().all():
            return  # weights cannot be inferred
        pulls = inferred.weights * dot_products(updates, step)
        total = pulls.sum().item()
        for entry, weight, pull in zip(
            measured, inferred.weights.tolist(), pulls.tolist(), strict=True
        ):
            entry.weight = weight
            entry.contribution = pull / total if total > 0 else math.nan

    def _without_each(
        self, server_round: int, answers: list[Message], start: np.ndarray
    ) -> dict[int, Tensor]:
        """Return the step that the strategy would have taken without each client."""
        steps: dict[int, Tensor] = {}
        for left_out in answers:
            others = _copied([reply for reply in answers if reply is not left_out])
            self._seed(server_round)
            try:
                arrays, _ = deepcopy(self.strategy).aggregate_train(server_round, others)
                if arrays is not None:
                    steps[left_out.metadata.src_node_id] = self._step(arrays, start)
            except Exception:  # it may need all of them: then the influence is unknown
                continue
        return steps

    def _seed(self, server_round: int) -> None:
        if self.seed is None:
            return
        rng = generator(self.seed, Purpose.AGGREGATION, server_round)
        first, second, third = rng.integers(2**32, size=3).tolist()
        random.seed(first)
        np.random.seed(second)  # noqa: NPY002 (it is what others draw from)
        torch.manual_seed(third)

    def _step(self, arrays: ArrayRecord, start: np.ndarray) -> Tensor:
        d = self._layout.n_parameters
        return torch.from_numpy((self._layout.flattened(arrays) - start)[:d])


def _distance(step: Tensor, other: Tensor) -> float:
    """Return the distance of two steps over the length of the first."""
    length = step.double().norm().item()
    return (step.double() - other.double()).norm().item() / length if length else math.nan


def _copied(replies: list[Message]) -> list[Message]:
    """Return the replies with copies of their arrays, which a strategy may modify."""
    copies = [copy(reply) for reply in replies]
    for reply in copies:
        if reply.has_content():
            reply.content = without_views(reply.content)
    return copies


@contextmanager
def _warnings_noted() -> Iterator[list[str]]:
    """Note warnings in Flower's log, even those not shown: only they tell why one of Flower's
    strategies returned no model."""
    noted: list[str] = []
    level = LOG.level

    def note(record: logging.LogRecord) -> bool:
        if record.levelno == logging.WARNING:
            noted.append(record.getMessage())
        return record.levelno >= level

    LOG.addFilter(note)
    LOG.setLevel(min(level, logging.WARNING))
    try:
        yield noted
    finally:
        LOG.setLevel(level)
        LOG.removeFilter(note)


@contextmanager
def _older_objects_spared() -> Iterator[None]:
    """Let garbage collections look at new objects alone.

    Flower's strategies collect garbage at every reply that they read, which takes a quarter of a
    second among all the objects that torch has imported.
    """
    if gc.get_freeze_count():  # frozen by other code, which alone may undo it
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
