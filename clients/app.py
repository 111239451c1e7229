"""The Flower ``ClientApp`` around a shard and local training."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from clients.attacks import TrainingAttack
from clients.reporting import Claim, claimed, report_of
from clients.shard import Shard
from clients.training import LocalTraining, State, StepHook, train, train_cohort
from strategies.flower_arrays import Layout, packed, state_dict_of
from strategies.randomness import Purpose, generator

CLEAN_ARRAYS = "clean-arrays"  # an attacker's second reply, for its colluders alone
LAST_RECEIVED = "last-received"


class Work(NamedTuple):
    """What a client does in a round."""

    shard: Shard
    settings: LocalTraining
    training_attack: TrainingAttack | None = None
    twin: Shard | None = None
    """Clean data on which an attacker trains a second model from the received one. It comes with
    the reply as ``clean-arrays``, which never reach the server."""
    keeps_received: bool = False
    """Whether the client keeps the received model for its next round."""
    claim: Claim = "honest"
    """How the client reports its loss."""


class _Job(NamedTuple):
    """One model to train."""

    shard: Shard
    settings: LocalTraining
    rng: np.random.Generator
    hook: StepHook | None = None


class ShardClientApp(ClientApp):
    """Trains the received model on the shard of the node's ``partition-id``.

    A query is answered with the ``partition-id``. The reply to training holds the trained
    ``arrays`` and the metrics ``num-examples``, ``train-loss`` and, where the server's config asks
    for it with ``report-loss``, ``received-loss`` and ``received-confidence``: the mean loss of the
    received model on the client's own data, and the mean probability that it gives their labels.

    Args:
        shard_of: Returns a client's shard.
        build_model: Returns the model; called once.
        settings: How to train.
        seed: The scenario's seed.
        cohort: How many clients :meth:`train_many` trains at once.
        work_of: Returns what a client (the first argument) does in a round (the second) where that
            is not to train on its shard as ``settings`` say: attackers.
    """

    def __init__(
        self,
        shard_of: Callable[[int], Shard],
        build_model: Callable[[], nn.Module],
        settings: LocalTraining,
        seed: int,
        cohort: int = 1,
        work_of: Callable[[int, int], Work | None] = lambda client, round_: None,
    ) -> None:
        super().__init__()
        self._shard_of = shard_of
        # Convolutions on a CPU take a fifth less time where channels are last in memory.
        self._model = build_model().to(memory_format=torch.channels_last)
        self._state: State = self._model.state_dict()  # the model's own tensors
        self._settings = settings
        self._seed = seed
        self._received: tuple[ArrayRecord, State] | None = None
        self._layout = Layout.of(ArrayRecord())
        self._work_of = work_of
        self.cohort = cohort
        self.train()(self._train)
        self.query()(identify)

    def train_many(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Answer several training messages that carry the same model, together.

        Clients that train in the same way are one cohort; attackers may train in another.
        """
        received = self._load(messages[0])
        works = [self._work(m, c) for m, c in zip(messages, contexts, strict=True)]
        loss_metrics = [self._received_loss(m, w) for m, w in zip(messages, works, strict=True)]
        jobs = [
            self._jobs(work, received, message, context)
            for work, message, context in zip(works, messages, contexts, strict=True)
        ]
        trained = iter(self._train_jobs([job for own in jobs for job in own], received))
        return [
            self._reply(message, context, work, [next(trained) for _ in own], extra)
            for message, context, work, own, extra in zip(
                messages, contexts, works, jobs, loss_metrics, strict=True
            )
        ]

    def _train(self, message: Message, context: Context) -> Message:
        work = self._work(message, context)
        received = self._load(message)
        extra = self._received_loss(message, work)
        trained: list[tuple[ArrayRecord, float]] = []
        for job in self._jobs(work, received, message, context):
            if trained:  # the model has been trained once already
                self._restore(received)
            loss = train(self._model, job.shard, job.settings, job.rng, job.hook)
            trained.append((packed(self._state, self._layout), loss))
        return self._reply(message, context, work, trained, extra)

    def _work(self, message: Message, context: Context) -> Work:
        client = _client(context)
        work = self._work_of(client, _round(message))
        return work or Work(self._shard_of(client), self._settings)

    def _jobs(self, work: Work, received: State, message: Message, context: Context) -> list[_Job]:
        """Return the models to train: the one to send and, if there is one, its clean twin."""
        where = _round(message), _client(context)
        last = context.state.array_records.get(LAST_RECEIVED)
        hook = None
        if work.training_attack is not None:
            previous = state_dict_of(last) if last is not None else None
            hook = work.training_attack.hook(received, previous)
        rng = generator(self._seed, Purpose.TRAINING, *where)
        jobs = [_Job(work.shard, work.settings, rng, hook)]
        if work.twin is not None:  # in the same order, so that the data alone make the difference
            rng = generator(self._seed, Purpose.TRAINING, *where)
            jobs.append(_Job(work.twin, work.settings, rng))
        return jobs

    def _train_jobs(self, jobs: Sequence[_Job], received: State) -> list[tuple[ArrayRecord, float]]:
        """Return each job's trained arrays and loss, in order; equal settings are one cohort."""
        results: dict[int, tuple[ArrayRecord, float]] = {}
        for settings in dict.fromkeys(job.settings for job in jobs):
            places = [place for place, job in enumerate(jobs) if job.settings == settings]
            cohort = [jobs[place] for place in places]
            trained, losses = train_cohort(
                self._model,
                received,
                [job.shard for job in cohort],
                settings,
                [job.rng for job in cohort],
                [job.hook for job in cohort] if any(job.hook for job in cohort) else None,
            )
            for row, place in enumerate(places):
                state = {name: values[row] for name, values in trained.items()}
                arrays = packed({**received, **state}, self._layout)
                results[place] = arrays, losses[row].item()
        return [results[place] for place in range(len(jobs))]

    def _load(self, message: Message) -> State:
        arrays = message.content["arrays"]
        if self._received is None or self._received[0] is not arrays:  # once for a whole chunk
            assert isinstance(arrays, ArrayRecord)
            state = state_dict_of(arrays)
            self._model.load_state_dict(state)  # names what does not fit
            self._received, self._layout = (arrays, state), Layout.of(arrays)
        else:
            self._restore(self._received[1])
        return self._received[1]

    @torch.no_grad()
    def _restore(self, received: State) -> None:
        for name, value in self._state.items():
            value.copy_(received[name])

    def _received_loss(self, message: Message, work: Work) -> dict[str, float]:
        if not message.content["config"].get("report-loss", False):
            return {}
        report = claimed(report_of(self._model, work.shard), work.claim)
        return {"received-loss": report.loss, "received-confidence": report.confidence}

    @staticmethod
    def _reply(
        message: Message,
        context: Context,
        work: Work,
        trained: Sequence[tuple[ArrayRecord, float]],
        extra: dict[str, float],
    ) -> Message:
        """Return the reply, and only now note what the client keeps: all went well."""
        arrays, loss = trained[0]
        metrics = {"num-examples": len(work.shard.labels), "train-loss": loss, **extra}
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)})
        for twin, _ in trained[1:]:
            content[CLEAN_ARRAYS] = twin
        if work.keeps_received:
            context.state[LAST_RECEIVED] = message.content["arrays"]
        return Message(content, reply_to=message)


def identify(message: Message, context: Context) -> Message:
    """Tell a server which partition this node holds: Flower's own engine does not know."""
    metrics = MetricRecord({"partition-id": _client(context)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _client(context: Context) -> int:
    return int(context.node_config["partition-id"])


def _round(message: Message) -> int:
    server_round = message.content["config"]["server-round"]
    assert isinstance(server_round, int)
    return server_round
