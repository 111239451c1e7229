"""The Flower ``ClientApp`` around a shard and local training."""

import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from clients.attacks import TrainingAttack
from clients.device_memory import DeviceMemory, HostMemory
from clients.local import Lesson, LocalMethod, LocalRound
from clients.reporting import Claim, claimed, report_of
from clients.shard import Shard
from clients.trainer import Job, Trained, Trainer, device_of, moved
from clients.training import LocalTraining, State, StepHook, gradient_of
from strategies.flower_arrays import (
    Layout,
    flat_record,
    packed,
    record_of,
    records_in,
    state_dict_of,
)
from strategies.randomness import Purpose, generator

ARRAYS = "arrays"
CONFIG = frozenset({"server-round", "report-loss"})  # all of a server's config that is read here
LEARNT = "learnt"  # what attackers have learnt, by poison name; honest clients ignore it
CLEAN_ARRAYS = "clean-arrays"  # an attacker's second reply, for its colluders alone
LAST_RECEIVED = "last-received"
PERSONAL = "personal"  # a client's own model, which it keeps
LOCAL_MEMORY = "local-memory"


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


class _Plan(NamedTuple):
    """What a client trains in a round."""

    work: Work
    jobs: dict[str, Job]
    """The models to train, by the name of the record that each becomes."""
    received: State
    lesson: Lesson


class ShardClientApp(ClientApp):
    """Trains the received model on the shard of the node's ``partition-id``.

    A query is answered with the ``partition-id``. The reply to training holds the trained
    ``arrays`` and the metrics ``num-examples``, ``train-loss`` and, where the server's config asks
    for it with ``report-loss``, ``received-loss`` and ``received-confidence``: the mean loss of the
    received model on the client's own data, and the mean probability that it gives their labels. It
    evaluates nothing: Flower's own strategies need ``fraction_evaluate=0``.

    Args:
        shard_of: Returns a client's shard, an attacker's as it was before any poison.
        build_model: Returns the model; called once.
        settings: How to train.
        seed: The scenario's seed.
        cohort: The most clients that :meth:`train_many` trains at once.
        work_of: Returns what a client (the first argument) does in a round (the second), or None to
            train on its shard as ``settings`` say. It is for attackers; the third argument is what
            they have learnt.
        memory: The memory of the device to train on; by default the CPU's, without a limit.
        local: A group-robust or personal method inside every client; none by default.
        stays_on_device: Whether replies hold tensors on that device, for a server in this process.
    """

    def __init__(
        self,
        shard_of: Callable[[int], Shard],
        build_model: Callable[[], nn.Module],
        settings: LocalTraining,
        seed: int,
        cohort: int = 1,
        work_of: Callable[[int, int, State], Work | None] = lambda client, round_, learnt: None,
        memory: DeviceMemory | None = None,
        local: LocalMethod | None = None,
        *,
        stays_on_device: bool = False,
    ) -> None:
        super().__init__()
        self.notes: list[str] = []
        """Decisions taken while training, for the app's caller to read and clear."""
        self._shard_of = shard_of
        self._trainer = Trainer(
            # Convolutions on a CPU take a fifth less time where channels are last in memory.
            build_model().to(memory_format=torch.channels_last),
            memory or HostMemory(),
            cohort,
            self.notes.append,
            stays_on_device=stays_on_device,
        )
        self._settings = settings
        self._seed = seed
        self._received: tuple[ArrayRecord, State] | None = None
        self._layout = Layout.of(ArrayRecord())
        self._work_of = work_of
        self._local = local
        # A bound method would make a cycle: shards would stay until garbage is collected.
        itself = weakref.proxy(self)
        self.train()(lambda message, context: itself._train(message, context))
        self.query()(identify)

    @property
    def cohort(self) -> int:
        """How many clients :meth:`train_many` trains at once: fewer once memory ran short."""
        return self._trainer.size

    def train_many(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Answer the first of several training messages that carry the same model: as many as can
        be trained at once.

        Clients that train in the same way are one cohort; attackers may train in another.
        """
        received = self._load(messages[0])
        tasks = list(zip(messages, contexts, strict=True))[: self.cohort]
        plans = [self._plan(received, *task) for task in tasks]
        self._trainer.probe(received, [plan.jobs[ARRAYS] for plan in plans])
        answered = list(zip(tasks, plans, strict=True))[: self.cohort]
        extras = [self._received_loss(m, received, plan.work) for (m, _), plan in answered]
        each = [job for _, plan in answered for job in plan.jobs.values()]
        trained = iter(self._trainer.together(received, each))
        return [
            self._reply(*task, plan, trained, extra)
            for (task, plan), extra in zip(answered, extras, strict=True)
        ]

    def _train(self, message: Message, context: Context) -> Message:
        received = self._load(message)
        plan = self._plan(received, message, context)
        extra = self._received_loss(message, received, plan.work)
        trained = self._trainer.one_by_one(received, list(plan.jobs.values()))
        return self._reply(message, context, plan, trained, extra)

    def _plan(self, received: State, message: Message, context: Context) -> _Plan:
        """Return the models to train: the one to send, and where there are any, its clean twin
        and the client's own."""
        client, round_ = _client(context), round_of(message)
        told = _arrays_in(message.content, LEARNT)
        learnt = {} if told is None else state_dict_of(told)
        work = self._work_of(client, round_, learnt)
        work = work or Work(self._shard_of(client), self._settings)
        lesson = self._lesson(work, received, round_, context)
        make_rng = partial(generator, self._seed, Purpose.TRAINING, round_, client)
        hook = self._hook_maker(work, context)
        jobs = {ARRAYS: Job(lesson.shard, work.settings, make_rng, hook, lesson.objective)}
        if work.twin is not None:  # in the same order, so that the data alone make the difference
            jobs[CLEAN_ARRAYS] = Job(work.twin, work.settings, make_rng)
        if lesson.personal is not None:
            own = _arrays_in(context.state, PERSONAL)
            start = None if own is None else state_dict_of(own)
            jobs[PERSONAL] = Job(
                lesson.shard, work.settings, make_rng, objective=lesson.personal, start=start
            )
        return _Plan(work, jobs, received, lesson)

    def _hook_maker(self, work: Work, context: Context) -> Callable[[State], StepHook] | None:
        if (attack := work.training_attack) is None:
            return None
        last = _arrays_in(context.state, LAST_RECEIVED)
        previous = state_dict_of(last) if last is not None else None
        client, size = _client(context), work.settings.batch_size

        def make_hook(received: State) -> StepHook:
            device = device_of(received)
            there = None if previous is None else moved(previous, device)

            def clean_gradient() -> State:
                shard = self._shard_of(client).to(device)
                return gradient_of(self._trainer.model, received, shard, size)

            return attack.hook(received, there, clean_gradient)

        return make_hook

    def _lesson(self, work: Work, received: State, round_: int, context: Context) -> Lesson:
        if self._local is None:
            return Lesson(work.shard)
        record = _arrays_in(context.state, LOCAL_MEMORY)
        memory = {} if record is None else state_dict_of(record)
        model = self._trainer.holding(received).eval()  # so that it draws no random numbers
        shard = work.shard.to(self._trainer.device)
        rng = generator(self._seed, Purpose.LESSON, round_, _client(context))
        return self._local.lesson(LocalRound(model, shard, round_, memory, rng))

    def _load(self, message: Message) -> State:
        arrays = message.content[ARRAYS]
        if self._received is None or self._received[0] is not arrays:  # once for a whole chunk
            assert isinstance(arrays, ArrayRecord)
            state = moved(state_dict_of(arrays), self._trainer.device)
            self._trainer.model.load_state_dict(state)  # raises, and names what does not fit
            self._received, self._layout = (arrays, state), Layout.of(arrays)
        return self._received[1]

    def _sent(self, done: Trained) -> ArrayRecord:
        """Return a trained model as it is sent, without a copy if it is a row of a cohort."""
        if done.row is not None and self._layout.is_flat and self._layout.names == done.names:
            return flat_record(self._layout, done.row)
        return packed(done.state, self._layout)

    def _received_loss(self, message: Message, received: State, work: Work) -> dict[str, float]:
        if not message.content["config"].get("report-loss", False):
            return {}
        shard = work.shard.to(self._trainer.device)
        report = claimed(report_of(self._trainer.holding(received), shard), work.claim)
        return {"received-loss": report.loss, "received-confidence": report.confidence}

    def _reply(
        self,
        message: Message,
        context: Context,
        plan: _Plan,
        trained: Iterator[Trained],
        extra: dict[str, float],
    ) -> Message:
        """Return the reply, and store what the client keeps, now that all went well."""
        own = next(trained)
        if plan.lesson.revise is not None:
            with torch.no_grad():
                # Only in place: they may be views of the row that is sent.
                plan.lesson.revise(plan.received, MappingProxyType(own.state))
        metrics = {
            "num-examples": len(plan.work.shard.labels),
            "train-loss": own.loss,
            **extra,
        }
        content = RecordDict({ARRAYS: self._sent(own), "metrics": MetricRecord(metrics)})
        if CLEAN_ARRAYS in plan.jobs:
            content[CLEAN_ARRAYS] = self._sent(next(trained))
        if PERSONAL in plan.jobs:
            context.state[PERSONAL] = self._sent(next(trained))
        if plan.work.keeps_received:
            context.state[LAST_RECEIVED] = message.content[ARRAYS]
        memory = plan.lesson.kept()
        if memory or LOCAL_MEMORY in context.state:  # an empty memory replaces it too
            arrays = {name: value.cpu().numpy() for name, value in memory.items()}
            context.state[LOCAL_MEMORY] = record_of(arrays)
        return Message(content, reply_to=message)


def identify(message: Message, context: Context) -> Message:
    """Tell a server which partition this node holds: Flower's own engine does not know."""
    metrics = MetricRecord({"partition-id": _client(context)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _arrays_in(content: RecordDict, name: str) -> ArrayRecord | None:
    return records_in(content, ArrayRecord).get(name)


def _client(context: Context) -> int:
    return int(context.node_config["partition-id"])


def round_of(message: Message) -> int:
    """Return the round that a training message is of."""
    server_round = message.content["config"]["server-round"]
    assert isinstance(server_round, int)
    return server_round
