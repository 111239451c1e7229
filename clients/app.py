"""The Flower ``ClientApp`` around a shard and local training."""

from collections.abc import Callable, Sequence

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from clients.shard import Shard
from clients.training import LocalTraining, State, mean_loss, train, train_cohort
from strategies.flower_arrays import record_of, state_dict_of
from strategies.randomness import Purpose, generator


class ShardClientApp(ClientApp):
    """Trains the received model on the shard of the node's ``partition-id``.

    A query is answered with the ``partition-id``. The reply to training holds the trained
    ``arrays`` and the metrics ``num-examples``, ``train-loss`` and, where the server's config asks
    for it with ``report-loss``, ``received-loss``: the mean loss of the received model on the
    client's own data.

    Args:
        shard_of: Returns a client's shard.
        build_model: Returns the model; called once.
        settings: How to train.
        seed: The scenario's seed.
        cohort: How many clients :meth:`train_many` trains at once.
    """

    def __init__(
        self,
        shard_of: Callable[[int], Shard],
        build_model: Callable[[], nn.Module],
        settings: LocalTraining,
        seed: int,
        cohort: int = 1,
    ) -> None:
        super().__init__()
        self._shard_of = shard_of
        self._model = build_model()
        self._settings = settings
        self._seed = seed
        self._received: tuple[ArrayRecord, State] | None = None
        self.cohort = cohort
        self.train()(self._train)
        self.query()(identify)

    def train_many(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Answer several training messages that carry the same model, as one cohort."""
        clients = [_client(context) for context in contexts]
        shards = [self._shard_of(client) for client in clients]
        received = self._load(messages[0])
        loss_metrics = [self._received_loss(m, s) for m, s in zip(messages, shards, strict=True)]
        rngs = [
            generator(self._seed, Purpose.TRAINING, _round(message), client)
            for message, client in zip(messages, clients, strict=True)
        ]
        trained, losses = train_cohort(self._model, received, shards, self._settings, rngs)
        return [
            self._reply(
                message,
                {**received, **{name: values[row] for name, values in trained.items()}},
                {"num-examples": len(shard.labels), "train-loss": losses[row].item(), **extra},
            )
            for row, (message, shard, extra) in enumerate(
                zip(messages, shards, loss_metrics, strict=True)
            )
        ]

    def _train(self, message: Message, context: Context) -> Message:
        client = _client(context)
        shard = self._shard_of(client)
        self._load(message)
        extra = self._received_loss(message, shard)
        rng = generator(self._seed, Purpose.TRAINING, _round(message), client)
        loss = train(self._model, shard, self._settings, rng)
        metrics = {"num-examples": len(shard.labels), "train-loss": loss, **extra}
        state = {name: value.clone() for name, value in self._model.state_dict().items()}
        return self._reply(message, state, metrics)

    def _load(self, message: Message) -> State:
        arrays = message.content.array_records["arrays"]
        if self._received is None or self._received[0] is not arrays:  # once for a whole chunk
            self._received = arrays, state_dict_of(arrays)
        self._model.load_state_dict(self._received[1])
        return self._received[1]

    def _received_loss(self, message: Message, shard: Shard) -> dict[str, float]:
        if not message.content.config_records["config"].get("report-loss", False):
            return {}
        return {"received-loss": mean_loss(self._model, shard.inputs, shard.labels)}

    @staticmethod
    def _reply(message: Message, state: State, metrics: dict[str, int | float]) -> Message:
        arrays = record_of({name: value.numpy() for name, value in state.items()})
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({**metrics})})
        return Message(content, reply_to=message)


def identify(message: Message, context: Context) -> Message:
    """Tell a server which partition this node holds: Flower's own engine does not know."""
    metrics = MetricRecord({"partition-id": _client(context)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _client(context: Context) -> int:
    return int(context.node_config["partition-id"])


def _round(message: Message) -> int:
    server_round = message.content.config_records["config"]["server-round"]
    assert isinstance(server_round, int)
    return server_round
