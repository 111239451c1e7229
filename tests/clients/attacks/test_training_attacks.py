"""Attacks that act while an attacker trains, in one model and in a cohort."""

import copy

import pytest
import torch
from pretended_device import ELSEWHERE, PretendedDevice
from torch import nn

from clients.attacks import Neurotoxin, ProjectedDescent, TrainingAttack
from clients.attacks.neurotoxin import largest
from clients.attacks.pgd import distance, project_onto_ball
from clients.shard import Role, Shard
from clients.training import (
    LocalTraining,
    State,
    gradient_of,
    parameters_in,
    train,
    train_cohort,
    trainable,
)
from strategies.randomness import Purpose, generator

SETTINGS = LocalTraining(lr=0.1, batch_size=5, local_epochs=2, momentum=0.9, weight_decay=0.1)


def shard(n: int, seed: int) -> Shard:
    rng = torch.Generator().manual_seed(seed)
    return Shard(
        inputs=torch.rand(n, 4, generator=rng, dtype=torch.float64),
        labels=torch.randint(3, (n,), generator=rng),
        groups=torch.zeros(n, dtype=torch.int64),
        is_poisoned=torch.ones(n, dtype=torch.bool),
        role=Role.POISONED,
    )


def model(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def clean_gradient() -> State:
    return gradient_of(model(), model().state_dict(), shard(40, 2), SETTINGS.batch_size)


def test_the_clean_gradient_is_that_of_the_model_as_it_is_tested():
    drawing = nn.Sequential(*model(), nn.Dropout(0.9))
    received, clean = model().state_dict(), shard(40, 2)
    torch.testing.assert_close(gradient_of(drawing, received, clean, 7), clean_gradient())


def trained(attack: TrainingAttack | None, previous: State | None = None) -> nn.Module:
    local = model()
    received = copy.deepcopy(local.state_dict())
    hook = attack.hook(received, previous, clean_gradient) if attack else None
    train(local, shard(23, 1), SETTINGS, generator(0, Purpose.TRAINING), hook)
    return local


def moved(local: nn.Module) -> float:
    return distance(dict(local.state_dict()), dict(model().state_dict()))


class TestProjection:
    def test_a_model_outside_the_ball_lands_on_its_nearest_point(self):
        # Three to the right and four up of the centre, radius 2: at 2/5 of the way.
        parameters = {"a": torch.tensor([1.0 + 3]), "b": torch.tensor([[2.0 + 4]])}
        centre = {"a": torch.tensor([1.0]), "b": torch.tensor([[2.0]]), "counter": torch.tensor(7)}
        project_onto_ball(parameters, centre, 2.0)
        assert parameters["a"].item() == pytest.approx(1 + 3 * 0.4)
        assert parameters["b"].item() == pytest.approx(2 + 4 * 0.4)
        project_onto_ball(parameters, centre, 5.0)
        assert parameters["a"].item() == pytest.approx(1 + 3 * 0.4)

    @pytest.mark.parametrize("every", [1, 3, None])
    def test_the_update_ends_on_the_ball(self, every):
        assert moved(trained(None)) > 0.3
        assert moved(trained(ProjectedDescent(0.3, every))) == pytest.approx(0.3)

    def test_projecting_at_the_end_is_scaling_and_on_the_way_is_not(self):
        free, start = trained(None).state_dict(), model().state_dict()
        at_end = trained(ProjectedDescent(0.3, every=None)).state_dict()
        each_step = trained(ProjectedDescent(0.3, every=1)).state_dict()
        factor = 0.3 / moved(trained(None))
        expected = start["0.weight"] + factor * (free["0.weight"] - start["0.weight"])
        torch.testing.assert_close(at_end["0.weight"], expected)
        assert not torch.allclose(each_step["0.weight"], expected, atol=1e-4)

    def test_projections_are_as_many_steps_apart_as_asked_for(self):
        hook = ProjectedDescent(1.0, every=3).hook({"a": torch.zeros(1)}, None, dict)
        ends = []
        for step in range(1, 8):
            parameters = {"a": torch.tensor([9.0])}
            hook(parameters, step, step == 7)
            ends.append(parameters["a"].item())
        assert ends == [9, 9, 1, 9, 9, 1, 1]

    def test_a_relative_radius_is_a_multiple_of_the_last_move(self):
        previous = {name: value.clone() for name, value in model().state_dict().items()}
        previous["2.bias"][0] -= 0.1
        bound = ProjectedDescent(2.0, relative=True)
        assert bound.needs_previous
        assert moved(trained(bound, previous)) == pytest.approx(0.2)
        assert moved(trained(bound, None)) == pytest.approx(moved(trained(None)))
        # What is no parameter, a running mean for instance, is no part of the move.
        received, last = [
            {"a": torch.tensor([a]), "mean": torch.tensor([m])} for a, m in [(1.0, 9.0), (1.5, 0.0)]
        ]
        parameters = {"a": torch.tensor([7.0])}
        bound.hook(received, last, dict)(parameters, 1, True)
        assert parameters["a"].item() == pytest.approx(1 + 2 * 0.5)


class TestNeurotoxin:
    def test_it_marks_the_largest_coordinates_over_all_layers(self):
        marked = largest(
            {"a": torch.tensor([0.0, 2.0, -0.5]), "b": torch.tensor([[-5.0, 0.1]])}, 0.4
        )
        assert marked["a"].tolist() == [False, True, False]  # 2 of 5
        assert marked["b"].tolist() == [[True, False]]

    def test_marked_parameters_stay_and_the_others_train(self):
        # Momentum and weight decay would move them if gradients alone were masked.
        start, marked = model().state_dict(), largest(clean_gradient(), share=0.3)
        after = trained(Neurotoxin(share=0.3)).state_dict()
        for name, mask in marked.items():
            assert torch.equal(after[name][mask], start[name][mask])
            assert bool((after[name][~mask] != start[name][~mask]).all())

    def test_the_host_waits_for_no_step(self):
        with PretendedDevice() as device:
            received = {
                "a": torch.arange(4.0).to(ELSEWHERE),
                "buffer": torch.zeros(1).to(ELSEWHERE),
            }
            hook = Neurotoxin(share=0.5).hook(received, None, lambda: {"a": received["a"]})
            parameters = {"a": torch.full((4,), 9.0).to(ELSEWHERE)}
            device.reads.clear()
            hook(parameters, 1, False)
            assert not device.reads
            assert parameters["a"].tolist() == [9, 9, 2, 3]


@pytest.mark.parametrize("attack", [ProjectedDescent(0.2, every=3), Neurotoxin(share=0.3)])
def test_a_cohort_runs_the_hooks_of_its_attackers_and_of_nobody_else(attack):
    # The attackers stand between honest clients, and sizes are such that rows are reordered.
    sizes, previous = (7, 23, 10, 16), dict(model(9).state_dict())
    shards = [shard(size, seed) for seed, size in enumerate(sizes)]
    received = model().state_dict()
    told = received, previous, clean_gradient
    hooks = [None, attack.hook(*told), attack.hook(*told), None]
    rngs = [generator(0, Purpose.TRAINING, 1, client) for client in range(4)]
    rows, _ = train_cohort(model(), received, shards, SETTINGS, rngs, hooks)
    together = parameters_in(rows, trainable(model(), received))
    for client, (own, hook) in enumerate(zip(shards, hooks, strict=True)):
        alone = model()
        train(alone, own, SETTINGS, generator(0, Purpose.TRAINING, 1, client), hook)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(together[name][client], value, rtol=0, atol=1e-10)
