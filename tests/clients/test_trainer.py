"""Cohorts as large as memory allows."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from clients.device_memory import DeviceMemory, HostMemory
from clients.shard import Role, Shard
from clients.trainer import Job, Trained, Trainer
from clients.training import LocalTraining, State, train_cohort

SETTINGS = LocalTraining(lr=0.1, batch_size=5, local_epochs=2, momentum=0.9)
SIZES = (7, 23, 10, 1, 16, 12, 5, 30)


def shard(n_examples: int, seed: int) -> Shard:
    rng = torch.Generator().manual_seed(seed)
    return Shard(
        inputs=torch.rand(n_examples, 6, generator=rng),
        labels=torch.randint(3, (n_examples,), generator=rng),
        groups=torch.zeros(n_examples, dtype=torch.int64),
        is_poisoned=torch.zeros(n_examples, dtype=torch.bool),
        role=Role.HONEST_MAJORITY,
    )


def job(client: int, settings: LocalTraining = SETTINGS) -> Job:
    rng = partial(np.random.default_rng, [5, client])
    return Job(shard(SIZES[client % len(SIZES)], client), settings, rng)


def model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))


def same(one: list[Trained], other: list[Trained]) -> None:
    for first, second in zip(one, other, strict=True):
        assert first.loss == pytest.approx(second.loss, rel=1e-5)
        for name, value in first.state.items():
            torch.testing.assert_close(value, second.state[name], rtol=0, atol=1e-5)


def one_by_one(trainer: Trainer, jobs: list[Job]) -> list[Trained]:
    return [
        done._replace(state={name: value.clone() for name, value in done.state.items()})
        for done in trainer.one_by_one(model().state_dict(), jobs)
    ]


def together(trainer: Trainer, jobs: list[Job]) -> list[Trained]:
    return trainer.together(model().state_dict(), jobs)


JOBS = [job(client) for client in range(8)]
ALONE = one_by_one(Trainer(model(), HostMemory()), JOBS)


class Measured(DeviceMemory):
    """Measures what a test says, one answer after the other."""

    def __init__(self, free: int, peaks: list[int]) -> None:
        self.device, self._free, self.peaks = torch.device("cpu"), free, peaks

    def free(self) -> int:
        return self._free

    def peak_of(self, work: Callable[[], object]) -> int:
        work()
        return self.peaks.pop(0)


class Optimist(HostMemory):
    """Says that much is free, and has little."""

    def free(self) -> int:
        return 2**40


class Full(Measured):
    """A device with no room at all."""

    @contextmanager
    def _full(self):
        raise torch.OutOfMemoryError("CUDA out of memory.")
        yield

    def limited(self) -> AbstractContextManager[object]:
        return self._full()


def trainer_with(memory: DeviceMemory, largest: int = 8) -> tuple[Trainer, list[str]]:
    notes: list[str] = []
    return Trainer(model(), memory, largest, notes.append), notes


def test_the_cohort_is_what_fits_into_seven_tenths_of_free_memory():
    # 800 KiB and 300 KiB a client: of 3,500 KiB, (3500 - 800) / 300 = 9 clients.
    memory = Measured(5_000 * 2**10, [1_100 * 2**10, 1_400 * 2**10])
    trainer, notes = trainer_with(memory, largest=50)
    trainer.probe(model().state_dict(), JOBS)
    assert trainer.size == 9
    text = (
        "cpu: cohorts of 9 instead of 50 clients, as each takes 300.0 KiB and 70% of free memory is"
    )
    assert notes == [f"{text} 3.4 MiB"]
    trainer.probe(model().state_dict(), JOBS)  # asks no second time: no answer is left
    assert not memory.peaks


def test_a_cohort_is_never_larger_than_asked_for_and_never_empty():
    for free, size in ((2**40, 50), (1, 1)):
        trainer, _ = trainer_with(Measured(free, [1_000, 1_500]), largest=50)
        trainer.probe(model().state_dict(), JOBS)
        assert trainer.size == size


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_second_step_takes_as_much_as_any_later_one(optimizer: str):
    settings = LocalTraining(lr=0.1, batch_size=5, local_epochs=3, optimizer=optimizer)
    start, shards = model().state_dict(), [shard(30, 0), shard(23, 1)]

    def peak(most_steps: int | None) -> int:
        rngs = [np.random.default_rng(i) for i in range(2)]
        return HostMemory().peak_of(
            lambda: train_cohort(model(), start, shards, settings, rngs, None, most_steps)
        )

    # At the end the schedule's own copies are no more, so that the last row may be the peak.
    assert peak(1) < peak(2) == pytest.approx(peak(None), rel=0.05)


def test_a_cohort_that_was_planned_from_a_probe_fits():
    room = HostMemory(limit=8_000)
    trainer, notes = trainer_with(room)
    trainer.probe(model().state_dict(), JOBS)
    assert 1 < trainer.size < 8
    same(together(trainer, JOBS), ALONE)
    assert len(notes) == 1  # nothing about running out


def test_a_cohort_that_does_not_fit_is_halved_until_it_does_and_stays_so():
    trainer, notes = trainer_with(Optimist(limit=8_000))
    trainer.probe(model().state_dict(), JOBS)
    assert trainer.size == 8
    same(together(trainer, JOBS), ALONE)
    assert notes == ["cpu: out of memory, cohorts of 4 instead of 8"]
    same(together(trainer, JOBS), ALONE)
    assert len(notes) == 1


def test_where_not_even_one_client_fits_training_goes_on_on_the_cpu():
    for train in (together, one_by_one):
        trainer, notes = trainer_with(Full(0, []))
        same(train(trainer, JOBS), ALONE)
        assert notes[-1] == "cpu: out of memory with a single client, continuing on the CPU"
        assert trainer.memory.free() is None


def test_one_client_that_does_not_fit_on_the_cpu_either_is_told():
    trainer, _ = trainer_with(HostMemory(limit=100))
    with pytest.raises(torch.OutOfMemoryError, match="one client does not fit"):
        together(trainer, JOBS)


def test_other_faults_of_a_client_are_not_taken_for_a_lack_of_memory():
    def broken(received: State):
        raise ValueError("a hook of its own")

    trainer, notes = trainer_with(HostMemory())
    with pytest.raises(ValueError, match="of its own"):
        trainer.together(model().state_dict(), [*JOBS, JOBS[0]._replace(make_hook=broken)])
    assert not notes


def test_jobs_of_other_settings_are_cohorts_of_their_own():
    slow = LocalTraining(lr=0.01, batch_size=4)
    jobs = [job(client, slow if client % 3 == 1 else SETTINGS) for client in range(8)]
    trainer, _ = trainer_with(HostMemory())
    alone = one_by_one(Trainer(model(), HostMemory()), jobs)
    same(together(trainer, jobs), alone)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Dropout(0.5), "the model draws random numbers while it trains"),
        (nn.BatchNorm1d(4), "the model keeps running means of its data (BatchNorm)"),
    ],
)
def test_a_model_that_fits_no_cohort_trains_one_by_one_whatever_the_cohort(layer, reason):
    jobs = [JOBS[2], JOBS[6], JOBS[7]]  # without a batch of one, which BatchNorm refuses

    def made(memory: DeviceMemory, largest: int) -> tuple[Trainer, list[str]]:
        notes: list[str] = []
        with_layer = model().insert(1, copy.deepcopy(layer))
        return Trainer(with_layer, memory, largest, notes.append), notes

    received = made(HostMemory(), 1)[0].model.state_dict()
    received = {name: value.clone() for name, value in received.items()}
    alone = made(HostMemory(), 1)[0].together(received, jobs)
    for memory in (HostMemory(), Measured(2**40, [1_000, 1_500])):
        trainer, notes = made(memory, 8)
        trainer.probe(received, jobs)
        for _ in range(2):
            for one, other in zip(trainer.together(received, jobs), alone, strict=True):
                assert one.loss == other.loss
                assert all(torch.equal(v, other.state[name]) for name, v in one.state.items())
        assert (trainer.size, notes) == (1, [f"{reason}: clients train one by one"])
