"""Attacks that act while an attacker trains, in one model and in a cohort."""

import copy

import pytest
import torch
from pretended_device import ELSEWHERE, PretendedDevice
from torch import nn

from clients.attacks import Neurotoxin, ProjectedDescent, TrainingAttack
from clients.attacks.neurotoxin import most_moved
from clients.attacks.pgd import distance, project_onto_ball
from clients.shard import Role, Shard
from clients.training import (
    LocalTraining,
    State,
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


def trained(attack: TrainingAttack | None, previous: State | None = None) -> nn.Module:
    local = model()
    received = copy.deepcopy(local.state_dict())
    hook = attack.hook(received, previous) if attack else None
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
        hook = ProjectedDescent(1.0, every=3).hook({"a": torch.zeros(1)}, None)
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


class TestNeurotoxin:
    def test_it_marks_the_coordinates_that_moved_most_over_all_layers(self):
        one = {"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([[4.0, 5.0]])}
        other = {"a": torch.tensor([1.0, 0.0, 3.5]), "b": torch.tensor([[9.0, 5.1]])}
        marked = most_moved(one, other, share=0.4)  # 2 of 5: by 2 and by 5
        assert marked["a"].tolist() == [False, True, False]
        assert marked["b"].tolist() == [[True, False]]

    def test_marked_parameters_stay_and_the_others_train(self):
        # Momentum and weight decay would move them if gradients alone were masked.
        previous, start = model(9).state_dict(), model().state_dict()
        marked = most_moved(start, previous, share=0.3)
        after = trained(Neurotoxin(share=0.3), previous).state_dict()
        for name, mask in marked.items():
            assert torch.equal(after[name][mask], start[name][mask])
            assert bool((after[name][~mask] != start[name][~mask]).all())

    def test_the_host_waits_for_no_step(self):
        with PretendedDevice() as device:
            received = {
                "a": torch.arange(4.0).to(ELSEWHERE),
                "buffer": torch.zeros(1).to(ELSEWHERE),
            }
            hook = Neurotoxin(share=0.4).hook(received, {n: 2 * v for n, v in received.items()})
            parameters = {"a": torch.full((4,), 9.0).to(ELSEWHERE)}
            device.reads.clear()
            hook(parameters, 1, False)
            assert not device.reads
            assert parameters["a"].tolist() == [9, 9, 2, 3]

    def test_the_first_time_nothing_is_kept_out(self):
        free, after = trained(None).state_dict(), trained(Neurotoxin()).state_dict()
        for name in free:
            assert torch.equal(after[name], free[name])


@pytest.mark.parametrize("attack", [ProjectedDescent(0.2, every=3), Neurotoxin(share=0.3)])
def test_a_cohort_runs_the_hooks_of_its_attackers_and_of_nobody_else(attack):
    # The attackers stand between honest clients, and sizes are such that rows are reordered.
    sizes, previous = (7, 23, 10, 16), dict(model(9).state_dict())
    shards = [shard(size, seed) for seed, size in enumerate(sizes)]
    received = model().state_dict()
    hooks = [None, attack.hook(received, previous), attack.hook(received, previous), None]
    rngs = [generator(0, Purpose.TRAINING, 1, client) for client in range(4)]
    rows, _ = train_cohort(model(), received, shards, SETTINGS, rngs, hooks)
    together = parameters_in(rows, trainable(model(), received))
    for client, (own, hook) in enumerate(zip(shards, hooks, strict=True)):
        alone = model()
        train(alone, own, SETTINGS, generator(0, Purpose.TRAINING, 1, client), hook)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(together[name][client], value, rtol=0, atol=1e-10)
