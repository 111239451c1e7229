"""The Flower strategy around a server step: it checks replies, aggregates, and keeps a ledger."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from strategies.aggregation.aggregate import Aggregator, TooFewClientsError, weighted_sum
from strategies.flower_arrays import (
    Layout,
    UnusableReplyError,
    batch_norm_statistics,
    only_arrays,
    records_in,
)
from strategies.ledger import LOG, NO_REPLY, OK, ClientEntry, RoundLedger
from strategies.memory import Memory, client_ids
from strategies.oracle import Oracle
from strategies.pipeline import (
    Order,
    Pipeline,
    RoundFacts,
    ServerStep,
    asked_facts,
    described,
)
from strategies.pre_aggregation.mixed import PreAggregator
from strategies.randomness import Purpose, generator
from strategies.reports import LARGEST_LOSS, alike, claimed_examples, metrics_in, number_in
from strategies.reweighting.lift import Reweighter
from strategies.running_sum import KEEP_MIB, RunningSum, takes_running_sum
from strategies.server_optimizers import OPTIMIZER_FACTS, ServerOptimizer
from strategies.shapes import CPU, Tensor
from strategies.update_rows import DeviceRows, HostRows, UpdateRows

MEMORY, OPTIMIZER_MEMORY = "memory/", "optimizer/"  # prefixes of names in a checkpoint


class RobustFedAvg(FedAvg):
    """FedAvg whose server step is ``global + pipeline(client updates)``.

    One strategy serves every rule and reweighting, because they are arguments. Every reply is
    checked by itself: a client that fails, or sends an unusable reply, is recorded in the ledger
    and left out, and never ends the run. Rows stand in the order of the clients' node ids. The
    strategy computes in float32, and returns arrays of the model's own types.

    Args:
        aggregate: An aggregation rule with its parameters bound, such as
            ``partial(krum, n_malicious=2)``.
        reweight: A reweighting with its parameters bound; none by default.
        order: Whether rule or reweighting comes first, see :class:`strategies.pipeline.Pipeline`.
        pre_aggregate: Pre-aggregations, in their order, with their parameters bound.
        optimize: A server optimizer with its parameters bound, such as ``partial(adam, lr=0.01)``;
            by default the model moves by the round's update. Where nobody has any weight, the
            optimizer is not called and the model stays as it is.
        n_examples: Returns how many examples a client, given by node id, holds. By default the
            client's own ``num-examples`` is believed, which an attacker can exaggerate.
        weight_by: ``clients`` gives every client the same prior weight, ``examples`` weights them
            by their number of examples.
        server_update: Trains the given arrays on the server's own data in the given round and
            returns the result; needed by rules that name ``reference``.
        oracle: Corrects the reweighting or the rule by the truth about clients, for comparison.
        losses: Which losses the reweighting and the rule use: ``reported`` by each client, of the
            received model on its own data, or ``measured`` by the server, of each client's updated
            model on the server's validation set.
        server_evaluate: Returns the error rate, the mean loss and the mean probability of the label
            of the given arrays on the server's own validation set; needed by rules that name
            ``evaluate`` and for measured losses.
        server_respond: Returns the outputs (logits) of the given arrays on the given number of
            random inputs, the same ones for all calls of the given round; needed by rules that name
            ``respond``.
        server_represent: Returns the inputs of the output layer, in the model of the given arrays,
            for the server's own data; needed by rules that name ``represent``.
        seed: Seed of the random numbers of the server step: those of a round depend on the seed and
            the round alone.
        device: Where the matrix of updates is kept and the server step is computed. Replies of
            clients in this process that trained on that device never travel through the host.
        on_too_few: What to do when fewer usable replies come than the rule's bound needs:
            ``skip_round`` keeps the model as it is, ``stop`` raises.
        keep_mib: A mean of more updates than this, in MiB on a CPU, adds them up as they come and
            keeps none: contributions are then unknown.
        buffers: Names of the model's arrays that are statistics, not parameters; by default those
            that PyTorch's BatchNorm keeps, recognised by name. No rule sees them: they are averaged
            by the rule's weights.
        averages_metrics: Whether to average, as FedAvg does, the metrics that clients report of
            their training; a caller that reads the ledger can save this time.
        fedavg: Arguments of Flower's FedAvg (sampling, record keys, how to average metrics).
    """

    def __init__(
        self,
        aggregate: Aggregator,
        *,
        reweight: Reweighter | None = None,
        order: Order = "filter_then_lift",
        pre_aggregate: Sequence[PreAggregator] = (),
        optimize: ServerOptimizer | None = None,
        n_examples: Callable[[int], int] | None = None,
        weight_by: Literal["clients", "examples"] = "clients",
        server_update: Callable[[ArrayRecord, int], ArrayRecord] | None = None,
        oracle: Oracle | None = None,
        losses: Literal["reported", "measured"] = "reported",
        server_evaluate: Callable[[ArrayRecord], tuple[float, float, float]] | None = None,
        server_respond: Callable[[ArrayRecord, int, int], Tensor] | None = None,
        server_represent: Callable[[ArrayRecord], Tensor] | None = None,
        seed: int = 0,
        on_too_few: Literal["skip_round", "stop"] = "skip_round",
        device: torch.device | str = "cpu",
        keep_mib: float = KEEP_MIB,
        buffers: Collection[str] | None = None,
        averages_metrics: bool = True,
        **fedavg: Any,
    ) -> None:
        super().__init__(**fedavg)
        self.pipeline = Pipeline(aggregate, reweight, order, pre_aggregate, oracle)
        given = {
            "reference": ("server_update", server_update),
            "evaluate": ("server_evaluate", server_evaluate),
            "respond": ("server_respond", server_respond),
            "represent": ("server_represent", server_represent),
        }
        for fact, (argument, function) in given.items():
            if function is None and self.pipeline.rule_asks(fact):
                raise TypeError(f"the aggregation rule asks for {fact}: pass {argument}")
        if losses == "measured" and server_evaluate is None and self.pipeline.needs_losses:
            raise TypeError("measured losses need validation data: pass server_evaluate")
        self.optimize = optimize
        self._optimizer_asks = asked_facts(optimize, OPTIMIZER_FACTS, skip=1) if optimize else set()
        self._optimizer_memory: Memory = {}
        self.losses = losses
        self.n_examples = n_examples
        self.weight_by = weight_by
        self._server: dict[str, Any] = {fact: function for fact, (_, function) in given.items()}
        self.seed = seed
        self.on_too_few = on_too_few
        self.averages_metrics = averages_metrics
        self.memory: Memory = {}
        self.ledger: RoundLedger | None = None
        """The last round's ledger."""
        self._initial: np.ndarray | None = None  # flat, for methods that restart
        self._buffers = None if buffers is None else frozenset(buffers)
        self._arrays = ArrayRecord()
        self._layout = Layout.of(self._arrays)
        self._sampled: list[int] = []
        self.device = torch.device(device)
        self.keep_mib = keep_mib
        self._matrix = torch.empty(0, 0)
        self._sum: RunningSum | None = None

    def summary(self) -> None:
        """Log the server step, then FedAvg's settings."""
        methods = [
            *(("Pre-aggregation", step) for step in self.pipeline.pre_aggregate),
            ("Rule", self.pipeline.aggregate),
            (f"Reweighting ({self.pipeline.order})", self.pipeline.reweight),
            ("Server optimizer", self.optimize),
        ]
        for what, method in methods:
            if method is not None:
                LOG.info("\t├──> %s: %s", what, described(method))
        LOG.info("\t├──> Prior weight by: %s", self.weight_by)
        super().summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Address the round's clients, in the order of their node ids."""
        if self._buffers is None:
            self._buffers = batch_norm_statistics(arrays)
        self._arrays, self._layout = arrays, Layout.of(arrays, self._buffers)
        if self._initial is None and self.pipeline.reweight is not None:
            self._initial = self._layout.flattened(arrays)
        if self.pipeline.needs_losses and self.losses == "reported":
            config["report-loss"] = True
        messages = list(super().configure_train(server_round, arrays, config, grid))
        messages.sort(key=lambda message: message.metadata.dst_node_id)
        self._sampled = [message.metadata.dst_node_id for message in messages]
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check the replies one by one, take the server step, and fill the ledger.

        Raises:
            TooFewClientsError: If too few usable replies came and ``on_too_few`` is ``stop``.
        """
        ledger = self.ledger = RoundLedger(server_round)
        start = self._layout.flattened(self._arrays)
        reports = self._receive(replies, start, ledger)
        ledger.set_priors(self.weight_by)
        usable = [row for row, entry in enumerate(ledger.clients) if entry.status == OK]
        n_lost = len(ledger.clients) - len(usable)
        LOG.info("aggregate_train: %d usable replies, %d failed or rejected", len(usable), n_lost)
        for entry in ledger.clients:
            if entry.status != OK:
                LOG.info("\t> node %d: %s", entry.client, entry.status)
        try:
            if not usable:
                raise TooFewClientsError("no client sent a usable reply")
            step = self._server_step(start, ledger, usable)
        except TooFewClientsError as fault:
            if self.on_too_few == "stop":
                raise
            ledger.skip(str(fault))
            for row in usable:
                ledger.clients[row].weight = 0.0
            return None, self._metrics(ledger, reports)
        self.memory = {name: self._lasting(value) for name, value in step.memory.items()}
        ledger.restarted = step.restart
        self._record([ledger.clients[row] for row in usable], step)
        if step.restart:
            target, self._optimizer_memory = self._initial, {}
            assert target is not None  # kept since the first round where a reweighting may restart
        else:
            target = _moved(start, self._optimized(step.result.update, ledger))
            d = self._layout.n_parameters
            if d < len(target):
                sent = self._matrix[: len(usable), d:]
                target[d:] += weighted_sum(sent, step.result.weights).cpu().numpy()
        return self._layout.read_flat(target, self._arrays), self._metrics(ledger, reports)

    def _optimized(self, update: Tensor, ledger: RoundLedger) -> Tensor:
        """Return the move of the model: what the server optimizer makes of the update."""
        if not any(entry.weight > 0 for entry in ledger.clients):  # NaN for clients that failed
            ledger.skip("rule and lift leave nobody any weight")
            return update
        if self.optimize is None:
            return update
        known = {"memory": self._optimizer_memory, "round_": ledger.round_}
        move = self.optimize(update, **{name: known[name] for name in self._optimizer_asks})
        self._optimizer_memory = {k: self._lasting(value) for k, value in move.memory.items()}
        return move.update

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Average what clients report, by Flower's own method, which raises unless all reports have
        one form: those that differ from the most common form, or are not finite, are left out."""
        replies = list(replies)
        failed = [reply for reply in replies if reply.has_error()]  # Flower logs them
        answers = [reply for reply in replies if not reply.has_error()]
        places = self._averaged([reply.content for reply in answers], "aggregate_evaluate")
        return super().aggregate_evaluate(server_round, [answers[i] for i in places] + failed)

    def keeps_running_sum(self, n_clients: int, n_parameters: int) -> bool:
        """Whether replies are added up as they come, in the order of node ids."""
        return not self._buffers and takes_running_sum(
            self.pipeline, n_clients, n_parameters, self.device, self.keep_mib
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the strategy carries from round to round."""
        memories = {MEMORY: self.memory, OPTIMIZER_MEMORY: self._optimizer_memory}
        state = {
            f"{prefix}{name}": value.cpu()
            for prefix, memory in memories.items()
            for name, value in memory.items()
        }
        if self._initial is not None:
            state["initial"] = torch.from_numpy(self._initial.copy())
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.memory, self._optimizer_memory = (
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            for prefix in (MEMORY, OPTIMIZER_MEMORY)
        )
        self._initial = state["initial"].numpy() if "initial" in state else None

    def _receive(
        self, replies: Iterable[Message], start: np.ndarray, ledger: RoundLedger
    ) -> dict[int, RecordDict]:
        """Check each reply and write its update into its row, or add it to the running sum; return
        the metrics to average, by the client's place in the round."""
        n, d = len(self._sampled), len(start)
        rule = self.pipeline.row_by_row if self.keeps_running_sum(n, d) else None
        self._sum = None if rule is None else RunningSum(d, rule)
        n_rows = n if rule is None else 1
        if self._matrix.shape != (n_rows, d):
            self._matrix = torch.empty(n_rows, d, device=self.device)
        rows_on = HostRows if self.device.type == "cpu" else DeviceRows
        rows = rows_on(self._layout, self._matrix, start)
        places = {client: place for place, client in enumerate(self._sampled)}
        ledger.clients = [ClientEntry(client, NO_REPLY) for client in self._sampled]
        read: dict[int, tuple[ClientEntry, MetricRecord]] = {}  # by the row of the update
        reports: dict[int, RecordDict] = {}
        for reply in replies:
            place = places.pop(reply.metadata.src_node_id, None)
            if place is None:
                continue  # nobody asked this node, or it answered before
            entry = ledger.clients[place]
            row = place if self._sum is None else 0
            if reply.has_error():
                entry.status = f"failed: {reply.error.reason}"
            else:
                with _told(entry):
                    read[row] = entry, self._read(reply, row, entry, rows)
                    if self.averages_metrics:
                        reports[place] = RecordDict({**records_in(reply.content, MetricRecord)})
            del reply  # its arrays lie in memory that the next ones need
            if self._sum is None:
                continue
            self._check_updates(start, rows, read)
            read.clear()  # the row is the next one's
            if entry.status == OK:
                weight = entry.raw_weight(self.weight_by)
                self._sum.put(place, self._matrix[row], weight, entry.update_norm)
            else:
                self._sum.skip(place)
        self._check_updates(start, rows, read)
        return reports

    def _read(self, reply: Message, row: int, entry: ClientEntry, rows: UpdateRows) -> MetricRecord:
        """Write the update into a row and the client's claims into the ledger; return its
        metrics."""
        metrics = metrics_in(reply.content)
        entry.n_examples = (
            self.n_examples(entry.client)
            if self.n_examples is not None
            else claimed_examples(metrics, self.weighted_by_key)
        )
        entry.train_loss = number_in(metrics, "train-loss", math.nan)
        rows.write(row, only_arrays(reply.content))
        return metrics

    def _check_updates(
        self, start: np.ndarray, rows: UpdateRows, read: dict[int, tuple[ClientEntry, MetricRecord]]
    ) -> None:
        """Check the updates in their rows, and note their clients' losses if they are needed."""
        norms = rows.norms()
        for row, (entry, metrics) in read.items():
            with _told(entry):
                if not math.isfinite(norms[row]):
                    raise UnusableReplyError("update is not finite")
                entry.update_norm = norms[row]
                if self.pipeline.needs_losses:
                    self._believe(start, row, entry, metrics)

    def _believe(
        self, start: np.ndarray, row: int, entry: ClientEntry, metrics: MetricRecord
    ) -> None:
        """Note a client's loss and confidence, reported by it or measured by the server."""
        if self.losses == "measured":
            model = self._layout.read_flat(start + self._matrix[row].cpu().numpy(), self._arrays)
            _, loss, confidence = self._server["evaluate"](model)
        else:
            loss = number_in(metrics, "received-loss", math.nan)
            confidence = number_in(metrics, "received-confidence", math.nan)
        if not 0 <= loss <= LARGEST_LOSS:
            what = "a loss of the updated model" if self.losses == "measured" else "received-loss"
            raise UnusableReplyError(f"needs {what} >= 0, got {loss}")
        unknown = math.isnan(confidence) and not self.pipeline.needs_confidences
        if not (unknown or 0 <= confidence <= 1):
            raise UnusableReplyError(f"needs received-confidence from 0 to 1, got {confidence}")
        entry.believed_loss, entry.believed_confidence = loss, confidence

    def _server_step(self, start: np.ndarray, ledger: RoundLedger, usable: list[int]) -> ServerStep:
        if self._sum is not None:
            unknown = torch.full((len(usable),), math.nan)  # the rows are gone
            lift = self._prior([ledger.clients[row] for row in usable])
            return ServerStep(self._sum.result(), unknown, self.memory, restart=False, lift=lift)
        for kept, row in enumerate(usable):  # close the gaps that unusable replies left
            if kept != row:
                self._matrix[kept] = self._matrix[row]
        entries = [ledger.clients[row] for row in usable]
        d = self._layout.n_parameters

        def model_of(update: Tensor) -> ArrayRecord:
            return self._layout.read_flat(_moved(start, update), self._arrays)

        facts = RoundFacts(
            round_=ledger.round_,
            clients=client_ids([entry.client for entry in entries]),
            prior=self._prior(entries),
            losses=_as_doubles([entry.believed_loss for entry in entries]),
            confidences=_as_doubles([entry.believed_confidence for entry in entries]),
            received=lambda: torch.from_numpy(start[:d]).to(self.device),
            layers=self._layout.layers,
            reference=lambda: self._reference(ledger.round_, start),
            evaluate=lambda update: self._server["evaluate"](model_of(update))[:2],
            respond=lambda update, n_inputs: self._server["respond"](
                model_of(update), n_inputs, ledger.round_
            ).to(self.device),
            represent=lambda update: self._server["represent"](model_of(update)).to(self.device),
            rng=generator(self.seed, Purpose.AGGREGATION, ledger.round_),
        )
        memory = {  # a rule's memory belongs on the updates' device, a lift's on the host
            name: value.to(self.device if name.startswith(Pipeline.RULE_MEMORY) else CPU)
            for name, value in self.memory.items()
        }
        return self.pipeline(self._matrix[: len(usable), :d], facts, memory, overwrite=True)

    def _lasting(self, kept: Tensor) -> Tensor:
        """Return a tensor to keep, copied if it lies in the matrix, which the next round fills."""
        matrix = self._matrix.untyped_storage()
        return kept.clone() if kept.untyped_storage().data_ptr() == matrix.data_ptr() else kept

    @staticmethod
    def _prior(entries: list[ClientEntry]) -> Tensor:
        prior = _as_doubles([entry.prior_weight for entry in entries])
        return prior / prior.sum() if prior.any() else torch.full_like(prior, 1 / len(prior))

    @staticmethod
    def _record(entries: list[ClientEntry], step: ServerStep) -> None:
        columns = zip(
            entries,
            step.result.weights.tolist(),
            step.contribution.tolist(),
            step.result.suspicion.tolist(),
            step.lift.tolist(),
            strict=True,
        )
        for entry, *figures in columns:
            entry.weight, entry.contribution, entry.suspicion, entry.lift = figures

    def _reference(self, server_round: int, start: np.ndarray) -> Tensor:
        trained = self._server["reference"](self._arrays, server_round)
        update = torch.from_numpy(self._layout.flattened(trained) - start)
        return update[: self._layout.n_parameters].to(self.device)

    def _averaged(self, contents: list[RecordDict], where: str) -> list[int]:
        """Return the places of those that can be averaged, and log how many cannot."""
        places = alike(contents, self.weighted_by_key)
        if n_odd := len(contents) - len(places):
            LOG.warning(
                "%s: metrics of %d clients (of %d) are in no average: these need one MetricRecord "
                "with the keys that most have, finite numbers, and %s > 0",
                where,
                n_odd,
                len(contents),
                self.weighted_by_key,
            )
        return places

    def _metrics(self, ledger: RoundLedger, reports: dict[int, RecordDict]) -> MetricRecord:
        """Count usable replies, and average what they report."""
        usable = [place for place, entry in enumerate(ledger.clients) if entry.status == OK]
        told = [reports[place] for place in usable if place in reports]
        heard = [told[i] for i in self._averaged(told, "aggregate_train")]
        averages = self.train_metrics_aggr_fn(heard, self.weighted_by_key) if heard else {}
        counts = {"n-usable": len(usable), "n-unusable": len(ledger.clients) - len(usable)}
        return MetricRecord({**averages, **counts})


def _moved(start: np.ndarray, update: Tensor) -> np.ndarray:
    """Return a copy of the start, whose parameters are moved by an update."""
    target = start.copy()
    target[: len(update)] += update.cpu().numpy()
    return target


@contextmanager
def _told(entry: ClientEntry) -> Iterator[None]:
    """Note in a client's entry whether its reply can be used, as far as is known."""
    try:
        yield
        entry.status = OK
    except UnusableReplyError as fault:
        entry.status, entry.weight = f"rejected: {fault}", 0.0


def _as_doubles(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
