"""Local training: one client after the other, and a cohort at once."""

import copy
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from clients.reporting import report_of
from clients.shard import Role, Shard
from clients.training import (
    LocalTraining,
    NoCohortError,
    State,
    batches,
    classes_in,
    last_hidden,
    parameters_in,
    train,
    train_cohort,
    trainable,
)

RAGGED = (7, 23, 10, 1, 16)  # with batches of 5: ends mid-batch, on a batch, in the first batch
SETTINGS = {
    "sgd": LocalTraining(lr=0.1, batch_size=5, local_epochs=3),
    "sgd with momentum": LocalTraining(lr=0.1, batch_size=5, local_epochs=3, momentum=0.9),
    "sgd with weight decay": LocalTraining(lr=0.1, batch_size=5, local_epochs=3, weight_decay=0.1),
    "sgd with both": LocalTraining(
        lr=0.1, batch_size=5, local_epochs=3, momentum=0.9, weight_decay=0.1
    ),
    "adam": LocalTraining(lr=0.01, batch_size=5, local_epochs=3, optimizer="adam"),
    "adam with weight decay": LocalTraining(
        lr=0.01, batch_size=5, local_epochs=3, optimizer="adam", weight_decay=0.1
    ),
}
every_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


class Drawing(nn.Module):
    """A layer of a user's own that draws while it trains."""

    def __init__(self, draw: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.draw(x) if self.training else x


DRAWING = {
    "dropout": nn.Dropout(0.5),
    "dropout of channels": nn.Sequential(
        nn.Unflatten(1, (2, 3, 1)), nn.Dropout2d(0.5), nn.Flatten()
    ),
    "alpha dropout": nn.AlphaDropout(0.5),
    "dropout by a function": Drawing(lambda x: F.dropout(x, 0.5)),
    "noise": Drawing(lambda x: x + torch.rand(x.shape, dtype=x.dtype)),
    "noise in place": Drawing(lambda x: x + torch.empty(6, dtype=x.dtype).normal_()),
}
every_draw = pytest.mark.parametrize("layer", DRAWING.values(), ids=DRAWING)


def random_shard(n_examples: int, seed: int, dtype: torch.dtype = torch.float64) -> Shard:
    rng = torch.Generator().manual_seed(seed)
    return Shard(
        inputs=torch.rand(n_examples, 1, 2, 3, generator=rng, dtype=dtype),
        labels=torch.randint(3, (n_examples,), generator=rng),
        groups=torch.zeros(n_examples, dtype=torch.int64),
        is_poisoned=torch.zeros(n_examples, dtype=torch.bool),
        role=Role.HONEST_MAJORITY,
    )


def small_model(dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).to(dtype)


def generators(n: int) -> list[np.random.Generator]:
    return [np.random.default_rng([5, client]) for client in range(n)]


def one_by_one(model: nn.Module, shards: list[Shard], settings: LocalTraining):
    states, losses = [], []
    for shard, rng in zip(shards, generators(len(shards)), strict=True):
        local = copy.deepcopy(model)
        losses.append(train(local, shard, settings, rng))
        states.append(local.state_dict())
    stacked = {name: torch.stack([s[name] for s in states]) for name in model.state_dict()}
    return stacked, torch.tensor(losses, dtype=torch.float64)


def as_cohort(
    model: nn.Module,
    shards: list[Shard],
    settings: LocalTraining,
    start: State | None = None,
    rngs: list[np.random.Generator] | None = None,
):
    start, rngs = start or model.state_dict(), rngs or generators(len(shards))
    rows, losses = train_cohort(model, start, shards, settings, rngs)
    return parameters_in(rows, trainable(model, start)), losses


@every_setting
def test_optimizers_are_torchs_and_do_without_its_compiler(
    settings: LocalTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[settings.optimizer]
    given = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    given |= {"momentum": settings.momentum} if settings.optimizer == "sgd" else {}
    ours, theirs = small_model(), small_model()
    optimizer = kind(theirs.parameters(), **given)
    shard = random_shard(7, seed=0)
    for rows in batches(7, settings, generators(1)[0]):
        optimizer.zero_grad()
        F.cross_entropy(theirs(shard.inputs[rows]), shard.labels[rows]).backward()
        optimizer.step()
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # so that importing it fails
    train(ours, shard, settings, generators(1)[0])
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_example_with_one_output_that_is_no_number_is_called_nothing():
    logits = torch.tensor([[0.0, torch.nan, 1.0], [0.0, torch.inf, 1.0]])
    assert classes_in(logits).tolist() == [-1, 1]


class TestBatches:
    @given(
        n_examples=st.integers(1, 40),
        batch_size=st.integers(1, 50),
        epochs=st.integers(1, 4),
        seed=st.integers(0, 1_000),
    )
    def test_every_epoch_shows_every_example_once(self, n_examples, batch_size, epochs, seed):
        settings = LocalTraining(lr=1.0, batch_size=batch_size, local_epochs=epochs)
        steps = batches(n_examples, settings, np.random.default_rng(seed))
        shown = np.concatenate(steps).reshape(epochs, n_examples)
        assert (np.sort(shown, axis=1) == np.arange(n_examples)).all()

    def test_only_the_last_batch_of_an_epoch_is_smaller(self):
        settings = LocalTraining(lr=1.0, batch_size=4, local_epochs=2)
        steps = batches(10, settings, np.random.default_rng(0))
        assert [len(step) for step in steps] == [4, 4, 2, 4, 4, 2]

    def test_each_epoch_has_its_own_order(self):
        settings = LocalTraining(lr=1.0, batch_size=30, local_epochs=2)
        first, second = batches(30, settings, np.random.default_rng(0))
        assert not np.array_equal(first, second)

    @pytest.mark.parametrize("n_steps", [1, 3, 7])
    def test_steps_in_place_of_epochs_are_the_first_of_as_many_epochs_as_they_need(self, n_steps):
        def of(**length):
            settings = LocalTraining(lr=1.0, batch_size=4, **length)
            return [step.tolist() for step in batches(10, settings, np.random.default_rng(0))]

        assert of(local_steps=n_steps, local_epochs=9) == of(local_epochs=3)[:n_steps]


class TestOneClient:
    def test_one_step_of_sgd_is_the_gradient_times_the_learning_rate(self):
        # One feature, two classes, all weights 0: p = (1/2, 1/2), dL/dz = p - onehot.
        model = nn.Linear(1, 2).double()
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        shard = random_shard(1, 0)._replace(
            inputs=torch.tensor([[3.0]], dtype=torch.float64), labels=torch.tensor([1])
        )
        loss = train(model, shard, LocalTraining(lr=0.1, batch_size=1), generators(1)[0])
        assert loss == pytest.approx(np.log(2))
        torch.testing.assert_close(model.weight.flatten().tolist(), [-0.15, 0.15])
        torch.testing.assert_close(model.bias.tolist(), [-0.05, 0.05])

    def test_the_loss_told_is_the_mean_over_examples_and_not_over_batches(self):
        # With a learning rate of nothing, 7 examples in batches of 5 and 2.
        model, shard = small_model(), random_shard(7, 1)
        settings = LocalTraining(lr=1e-300, batch_size=5)
        told = train(model, shard, settings, generators(1)[0])
        assert told == pytest.approx(report_of(model, shard).loss, rel=1e-12)

    @every_draw
    def test_what_a_model_draws_is_the_client_s_own_chance(self, layer):
        def trained(process_seed: int, client_seed: int) -> torch.Tensor:
            model = small_model()
            model.insert(1, layer)
            model.eval()  # as it is when a client has told its loss
            settings = LocalTraining(lr=0.1, batch_size=20)
            one = random_shard(1, 2)  # twenty times, so that their order does not matter
            alike = Shard(*(column.repeat_interleave(20, dim=0) for column in one[:4]), one.role)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(process_seed)
                before = torch.get_rng_state()
                train(model, alike, settings, np.random.default_rng(client_seed))
                assert torch.equal(torch.get_rng_state(), before)
            return nn.utils.parameters_to_vector(model.parameters())

        assert torch.equal(trained(0, 0), trained(1, 0))
        assert (trained(0, 0) - trained(0, 1)).abs().max() > 1e-6  # more than rounding


class TestCohort:
    @every_draw
    def test_a_model_that_draws_is_refused_before_it_draws(self, layer):
        model = small_model()
        model.insert(1, layer)
        model.eval()
        before = torch.get_rng_state()
        with pytest.raises(NoCohortError, match=r"random numbers .* clients train one by one"):
            as_cohort(model, [random_shard(7, 0), random_shard(12, 1)], SETTINGS["sgd"])
        assert torch.equal(torch.get_rng_state(), before)

    @every_setting
    def test_it_trains_as_its_clients_would_one_by_one(self, settings):
        model = small_model()
        shards = [random_shard(size, seed) for seed, size in enumerate(RAGGED)]
        expected, expected_losses = one_by_one(model, shards, settings)
        trained, losses = as_cohort(model, shards, settings)
        assert trained.keys() == expected.keys()
        for name, values in trained.items():
            torch.testing.assert_close(values, expected[name], rtol=0, atol=1e-10)
        torch.testing.assert_close(losses, expected_losses, rtol=0, atol=1e-10)

    @every_setting
    def test_one_step_in_float32_agrees_to_its_precision(self, settings):
        settings = LocalTraining(**{**vars(settings), "local_epochs": 1, "batch_size": 23})
        model = small_model(torch.float32)
        shards = [random_shard(size, seed, torch.float32) for seed, size in enumerate(RAGGED)]
        expected, _ = one_by_one(model, shards, settings)
        trained, _ = as_cohort(model, shards, settings)
        for name, values in trained.items():
            torch.testing.assert_close(values, expected[name], rtol=0, atol=1e-6)

    def test_attention_in_a_cohort_agrees_and_brings_no_warning_of_torchs(self):
        attend = Drawing(lambda x: F.scaled_dot_product_attention(x, x, x))
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), attend, nn.Flatten(), nn.Linear(16, 3))
        settings = LocalTraining(lr=0.1, batch_size=23)
        shards = [random_shard(size, seed, torch.float32) for seed, size in enumerate(RAGGED)]
        expected, _ = one_by_one(model, shards, settings)
        trained, _ = as_cohort(model, shards, settings)
        for name, values in trained.items():
            torch.testing.assert_close(values, expected[name], rtol=0, atol=1e-6)

    @every_setting
    def test_a_client_that_is_done_is_left_alone(self, settings):
        # Momentum and weight decay would go on moving it if it were merely given no gradient.
        model = small_model()
        short, long = random_shard(2, 0), random_shard(50, 1)
        alone, _ = as_cohort(model, [short], settings)
        beside, _ = as_cohort(model, [short, long], settings)
        for name in alone:
            torch.testing.assert_close(beside[name][0], alone[name][0], rtol=0, atol=1e-12)

    def test_rows_are_in_the_order_of_the_shards_and_not_of_their_sizes(self):
        model, settings = small_model(), SETTINGS["sgd"]
        shards = [random_shard(size, 0) for size in (3, 30, 12)]
        trained, losses = as_cohort(model, shards, settings)
        for row, (shard, rng) in enumerate(zip(shards, generators(3), strict=True)):
            alone, loss = as_cohort(model, [shard], settings, rngs=[rng])
            torch.testing.assert_close(trained["1.weight"][row], alone["1.weight"][0])
            torch.testing.assert_close(losses[row], loss[0])

    @every_setting
    def test_the_received_model_is_not_changed(self, settings):
        model = small_model()
        start = {name: value.clone() for name, value in model.state_dict().items()}
        before = {name: value.clone() for name, value in start.items()}
        shards = [random_shard(size, seed) for seed, size in enumerate(RAGGED)]
        as_cohort(model, shards, settings, start)
        for name in before:
            assert torch.equal(start[name], before[name])
            assert torch.equal(model.state_dict()[name], before[name])

    def test_it_starts_from_the_received_model_and_not_from_its_own(self):
        model, settings = small_model(), SETTINGS["sgd"]
        received = small_model()
        with torch.no_grad():
            received.get_parameter("1.weight").add_(1)
        shards = [random_shard(6, 0), random_shard(9, 1)]
        expected, _ = one_by_one(received, shards, settings)
        trained, _ = as_cohort(model, shards, settings, received.state_dict())
        torch.testing.assert_close(trained["1.weight"], expected["1.weight"], rtol=0, atol=1e-10)

    @every_setting
    def test_frozen_parameters_stay_as_they_are(self, settings):
        model = small_model()
        model.get_parameter("1.weight").requires_grad_(False)
        shards = [random_shard(6, 0), random_shard(9, 1)]
        expected, _ = one_by_one(model, shards, settings)
        trained, _ = as_cohort(model, shards, settings)
        assert "1.weight" not in trained
        for name, values in trained.items():
            torch.testing.assert_close(values, expected[name], rtol=0, atol=1e-10)


def test_what_the_output_layer_is_given_is_told_and_no_hook_is_left():
    torch.manual_seed(0)
    hidden = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU())
    model = nn.Sequential(hidden, nn.Linear(3, 2))
    images = torch.rand(5, 1, 2, 2)
    torch.testing.assert_close(last_hidden(model, images), hidden(images))
    assert not model[1]._forward_pre_hooks  # a hook left behind would collect for ever
