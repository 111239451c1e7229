"""Methods inside a client, worked out on paper."""

from math import log

import numpy as np
import pytest
import torch
from torch import nn

from clients.device_memory import HostMemory
from clients.local import (
    Ditto,
    ExampleGroupDro,
    ExampleJtt,
    FedProx,
    GroupWeights,
    LocalRound,
    WorkerMomentum,
    flagged_by,
    with_copies,
)
from clients.shard import Role, Shard
from clients.trainer import Job, Trainer
from clients.training import LocalTraining

RNG = np.random.default_rng(0)


def shard(labels, groups=None) -> Shard:
    n = len(labels)
    inputs = torch.arange(float(n)).reshape(n, 1)
    groups = torch.zeros(n).long() if groups is None else torch.tensor(groups)
    return Shard(inputs, torch.tensor(labels), groups, torch.zeros(n).bool(), Role.HONEST_MAJORITY)


class Fixed(nn.Module):
    """Gives class 1 a probability of 3/4 whatever the input."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([0.0, log(3)]))

    def forward(self, inputs):
        return self.bias.expand(len(inputs), 2)


class TestExampleJtt:
    def test_examples_are_flagged_by_the_probability_of_their_label(self):
        own = shard([0, 1, 1, 0])
        assert flagged_by(Fixed(), own, 0.5).tolist() == [True, False, False, True]
        assert flagged_by(Fixed(), own, 0.2).tolist() == [False] * 4
        assert flagged_by(Fixed(), own, 0.8).tolist() == [True] * 4

    def test_a_flagged_example_is_seen_once_more_than_it_is_copied(self):
        seen = with_copies(shard([0, 1, 1, 0]), torch.tensor([True, False, False, True]), 2)
        assert seen.inputs.flatten().tolist() == [0, 1, 2, 3, 0, 3, 0, 3]
        assert seen.labels.tolist() == [0, 1, 1, 0, 0, 0, 0, 0]
        assert seen.role is Role.HONEST_MAJORITY

    def test_flags_are_set_in_the_last_warm_up_round_and_used_from_the_next(self):
        method, own = ExampleJtt(warm_up_rounds=2, n_copies=3), shard([0, 1])
        flipped = own._replace(labels=1 - own.labels)  # another model would flag others
        first = method.lesson(LocalRound(Fixed(), flipped, 1, {}, RNG))
        last = method.lesson(LocalRound(Fixed(), own, 2, first.kept(), RNG))
        assert len(first.shard.labels) == len(last.shard.labels) == 2
        for round_ in (3, 4):
            later = method.lesson(LocalRound(Fixed(), flipped, round_, last.kept(), RNG))
            assert later.shard.inputs.flatten().tolist() == [0, 1, 0, 0, 0]
            assert later.kept()["flagged"].tolist() == [1, 0]

    def test_who_is_not_asked_in_the_last_warm_up_round_has_the_flags_of_an_earlier_one(self):
        method, own = ExampleJtt(warm_up_rounds=3, n_copies=1), shard([0, 1])
        early = method.lesson(LocalRound(Fixed(), own, 1, {}, RNG))
        begun_again = own._replace(labels=own.labels * 0)  # the model gets all of these wrong
        lesson = method.lesson(LocalRound(Fixed(), begun_again, 4, early.kept(), RNG))
        assert lesson.shard.inputs.flatten().tolist() == [0, 1, 0]

    def test_who_was_never_asked_flags_when_the_model_has_trained_for_another_warm_up(self):
        method, own = ExampleJtt(warm_up_rounds=2, n_copies=1), shard([0, 1])
        early = method.lesson(LocalRound(Fixed(), own, 3, {}, RNG))
        assert early.shard.inputs.flatten().tolist() == [0, 1]
        assert early.kept() == {}
        for round_ in (4, 7):
            lesson = method.lesson(LocalRound(Fixed(), own, round_, {}, RNG))
            assert lesson.shard.inputs.flatten().tolist() == [0, 1, 0]
            assert lesson.kept()["flagged"].tolist() == [1, 0]


class TestGroupDro:
    def begun(self) -> GroupWeights:
        weighted = GroupWeights(torch.full((2,), 0.5).double(), step_size=1.0)
        weighted.begin({}, shard([0, 1], groups=[3, 5]))
        return weighted

    def test_a_step_of_one_multiplies_each_group_by_e_to_its_loss(self):
        # The first group has a loss of 0 and the second of ln 3.
        logits = torch.tensor([[40.0, 0.0], [log(2), 0.0]], requires_grad=True)
        weighted = self.begun()
        loss = weighted.loss({}, logits, torch.arange(2))
        torch.testing.assert_close(weighted.weights, torch.tensor([0.25, 0.75]).double())
        assert loss.item() == pytest.approx(0.75 * log(3))
        loss.backward()  # through the losses alone: 3/4 · (p - y), of p = (2/3, 1/3)
        assert logits.grad is not None
        torch.testing.assert_close(logits.grad[1], torch.tensor([0.5, -0.5]))

    def test_a_group_without_examples_in_the_batch_has_no_loss(self):
        weighted = self.begun()
        loss = weighted.loss({}, torch.tensor([[log(2), 0.0]]), torch.tensor([1]))
        assert loss.item() == pytest.approx(0.75 * log(3))
        torch.testing.assert_close(weighted.weights, torch.tensor([0.25, 0.75]).double())

    def test_weights_last_over_rounds_and_a_training_that_begins_again_forgets_its_steps(self):
        method, own = ExampleGroupDro(step_size=1.0), shard([0, 1], groups=[3, 5])
        lesson = method.lesson(LocalRound(Fixed(), own, 1, {}, RNG))
        for _ in range(2):
            lesson.objective.begin({}, own)
            lesson.objective.loss({}, Fixed()(own.inputs), torch.arange(2))
            # Probabilities 1/4 and 3/4: weights ∝ (4, 4/3).
            expected = torch.tensor([0.75, 0.25]).double()
            torch.testing.assert_close(lesson.kept()["group-weights.values"], expected)
        again = method.lesson(LocalRound(Fixed(), own, 2, lesson.kept(), RNG))
        again.objective.begin({}, own)
        again.objective.loss({}, Fixed()(own.inputs), torch.arange(2))
        # Once more: ∝ (3 · 4, 1 · 4/3).
        expected = torch.tensor([0.9, 0.1]).double()
        torch.testing.assert_close(again.kept()["group-weights.values"], expected)

    def test_a_group_that_is_held_now_and_then_keeps_its_weight(self):
        method = ExampleGroupDro(step_size=1.0)
        both, one = shard([0, 1], groups=[3, 5]), shard([0, 0], groups=[3, 3])
        often = ((both, [0.75, 0.25]), (one, [0.75, 0.25]), (both, [0.9, 0.1]))
        later = ((one, [1.0]), (both, [6 / 7, 1 / 7]))  # q begins at ∝ (1, 1/2)
        memory = {}
        for own, expected in (*often, *later):
            memory = {} if expected == [1.0] else memory
            lesson = method.lesson(LocalRound(Fixed(), own, 1, memory, RNG))
            lesson.objective.begin({}, own)
            loss = lesson.objective.loss({}, Fixed()(own.inputs), torch.arange(2))
            memory = lesson.kept()
            assert memory["group-weights.values"].tolist() == pytest.approx(expected)
            if own is one:
                assert loss.item() == pytest.approx(log(4))

    def test_a_training_that_ends_in_no_numbers_teaches_nothing(self):
        method, own = ExampleGroupDro(step_size=1.0), shard([0, 1], groups=[3, 5])
        memory = {"group-weights.clients": torch.tensor([3, 5]),
                  "group-weights.values": torch.tensor([0.75, 0.25]).double()}  # fmt: skip
        lesson = method.lesson(LocalRound(Fixed(), own, 1, memory, RNG))
        lesson.objective.begin({}, own)
        lesson.objective.loss({}, torch.full((2, 2), torch.nan), torch.arange(2))
        assert lesson.kept() == memory


class TestDitto:
    def test_a_personal_model_is_pulled_towards_the_received_one(self):
        own, received = shard([1]), {"bias": torch.tensor([0.0, log(3)])}
        start = {"bias": received["bias"] + 1}
        objective = Ditto(pull=2.0).lesson(LocalRound(Fixed(), own, 1, {}, RNG)).personal
        settings = LocalTraining(lr=0.1, batch_size=1)
        job = Job(own, settings, lambda: np.random.default_rng(0), None, objective, start)
        (done,) = Trainer(Fixed(), HostMemory()).one_by_one(received, [job])
        # The gradient of the cross-entropy is p - y = (1/4, -1/4); the pull adds 2 (v - w) = 2.
        expected = start["bias"] - 0.1 * (torch.tensor([0.25, -0.25]) + 2)
        torch.testing.assert_close(done.state["bias"], expected)

    def test_a_batch_is_judged_by_the_labels_of_its_own_examples(self):
        own, model = shard([0, 0, 1]), Fixed()
        objective = Ditto(pull=1.0).lesson(LocalRound(model, own, 1, {}, RNG)).personal
        objective.begin({"bias": model.bias.detach(), "unused": torch.zeros(1)}, own)
        parameters = {"bias": model.bias, "unused": torch.tensor([2.0])}
        loss = objective.loss(parameters, model(own.inputs[1:]), torch.tensor([1, 2]))
        assert loss.item() == pytest.approx((log(4) + log(4 / 3)) / 2 + 2)  # and λ/2 · 2²

    def test_the_model_that_is_sent_is_trained_as_ever(self):
        lesson = Ditto(pull=1.0).lesson(LocalRound(Fixed(), shard([1]), 1, {}, RNG))
        assert lesson.objective is None
        assert lesson.kept() == {}


class TestFedProx:
    def test_the_model_that_is_sent_is_pulled_back_to_the_received_one(self):
        own, received = shard([1]), torch.tensor([0.0, log(3)])
        lesson = FedProx(pull=2.0).lesson(LocalRound(Fixed(), own, 1, {}, RNG))
        settings = LocalTraining(lr=0.1, batch_size=1, local_epochs=2)
        job = Job(own, settings, lambda: np.random.default_rng(0), None, lesson.objective)
        (done,) = Trainer(Fixed(), HostMemory()).one_by_one({"bias": received}, [job])
        first = received - 0.1 * torch.tensor([0.25, -0.25])  # p - y, and no distance yet
        gradient = first.softmax(dim=0) - torch.tensor([0.0, 1.0]) + 2 * (first - received)
        torch.testing.assert_close(done.state["bias"], first - 0.1 * gradient)
        assert lesson.personal is None


class TestWorkerMomentum:
    def test_a_training_that_ends_in_no_numbers_is_not_remembered(self):
        method, model, memory = WorkerMomentum(beta=0.75), Fixed(), {}
        model.still = nn.Parameter(torch.zeros(1))
        model.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
        received = {"bias": torch.ones(2), "still": torch.ones(1), "frozen": torch.ones(1)}
        lost = torch.tensor([torch.nan, 2.0])
        for update, sent in ((2.0, 2.0), (lost, lost), (4.0, 2.5)):
            lesson, own = (
                method.lesson(LocalRound(model, shard([1]), 1, memory, RNG)),
                dict(received),
            )
            own["bias"] = own["bias"] + update
            lesson.revise(received, own)
            torch.testing.assert_close(own["bias"], torch.ones(2) + sent, equal_nan=True)
            memory = lesson.kept()
            assert set(memory) == {"bias", "still"}
