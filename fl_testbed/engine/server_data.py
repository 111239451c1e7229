"""What a server does that has data of its own."""

import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord
from torch import nn

from clients.shard import Shard
from clients.training import classes_in, logits_of, train
from fl_testbed.data import Federation
from fl_testbed.engine.models import build_model
from fl_testbed.scenario import Scenario
from strategies.flower_arrays import state_dict_of
from strategies.randomness import Purpose, generator
from strategies.robust import CPU


class ServerData:
    """The server's own data: it trains on them as a client would, and judges models by them."""

    def __init__(
        self, scenario: Scenario, federation: Federation, device: torch.device = CPU
    ) -> None:
        self._scenario, self._federation, self._device = scenario, federation, device
        self._ready: tuple[nn.Module, Shard] | None = None

    def train(self, arrays: ArrayRecord, server_round: int) -> ArrayRecord:
        """Return the arrays after training."""
        model, shard = self._load(arrays)
        rng = generator(self._scenario.seed, Purpose.SERVER_TRAINING, server_round)
        train(model, shard, self._scenario.training_in(server_round), rng)
        return ArrayRecord(model.state_dict())  # on the host

    def evaluate(self, arrays: ArrayRecord) -> tuple[float, float, float]:
        """Return the error rate, the mean loss and the mean probability of the label."""
        model, shard = self._load(arrays)
        logits = logits_of(model, shard.inputs)
        wrong = classes_in(logits) != shard.labels
        losses = F.cross_entropy(logits, shard.labels, reduction="none")
        confidence = (-losses.double()).exp().mean().item()
        return wrong.double().mean().item(), losses.mean().item(), confidence

    def _load(self, arrays: ArrayRecord) -> tuple[nn.Module, Shard]:
        if self._ready is None:
            shard = self._federation.server_shard().to(self._device)
            model = build_model(self._scenario, self._federation.dataset).to(self._device)
            self._ready = model, shard
        model, shard = self._ready
        model.load_state_dict(state_dict_of(arrays))
        return model, shard
