"""What a server does with models: trains and judges them on its own data, and queries them."""

from functools import cached_property, lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord
from torch import Tensor, nn

from clients.shard import Shard
from clients.training import classes_in, last_hidden, logits_of, train
from fl_testbed.data import Federation
from fl_testbed.engine.models import build_model
from fl_testbed.scenario import Scenario
from strategies.flower_arrays import state_dict_of
from strategies.randomness import Purpose, generator
from strategies.shapes import CPU


class ServerData:
    """The server's own data, on which it trains as a client would, and judges models."""

    def __init__(
        self, scenario: Scenario, federation: Federation, device: torch.device = CPU
    ) -> None:
        self._scenario, self._federation, self._device = scenario, federation, device
        draw = partial(random_inputs, federation.dataset.input_shape, scenario.seed, device)
        self._random_inputs = lru_cache(maxsize=1)(draw)  # a round queries many models

    def train(self, arrays: ArrayRecord, server_round: int) -> ArrayRecord:
        """Train a model on the server's data, and return its arrays."""
        model = self._load(arrays)
        rng = generator(self._scenario.seed, Purpose.SERVER_TRAINING, server_round)
        train(model, self._shard, self._scenario.training_in(server_round), rng)
        return ArrayRecord(model.state_dict())  # on the host

    def evaluate(self, arrays: ArrayRecord) -> tuple[float, float, float]:
        """Return a model's error rate, mean loss, and mean probability of the true label."""
        logits = logits_of(self._load(arrays), self._shard.inputs)
        labels = self._shard.labels
        wrong = classes_in(logits) != labels
        losses = F.cross_entropy(logits, labels, reduction="none")
        confidence = (-losses.double()).exp().mean().item()
        return wrong.double().mean().item(), losses.mean().item(), confidence

    def respond(self, arrays: ArrayRecord, n_inputs: int, server_round: int) -> Tensor:
        """Return a model's outputs on the round's random inputs in [0, 1): this needs no data."""
        return logits_of(self._load(arrays), self._random_inputs(n_inputs, server_round))

    def represent(self, arrays: ArrayRecord) -> Tensor:
        """Return the inputs of a model's output layer on the server's data."""
        return last_hidden(self._load(arrays), self._shard.inputs)

    @cached_property
    def _shard(self) -> Shard:
        return self._federation.server_shard().to(self._device)

    @cached_property
    def _model(self) -> nn.Module:
        return build_model(self._scenario, self._federation.dataset).to(self._device)

    def _load(self, arrays: ArrayRecord) -> nn.Module:
        self._model.load_state_dict(state_dict_of(arrays))
        return self._model


def random_inputs(
    shape: tuple[int, ...], seed: int, device: torch.device, n_inputs: int, server_round: int
) -> Tensor:
    """Return inputs of a shape, uniform in [0, 1), that are the same for a whole round."""
    rng = generator(seed, Purpose.PROBE, server_round)
    return torch.from_numpy(rng.random((n_inputs, *shape), dtype=np.float32)).to(device)
