"""Trains clients on a device: one by one, or in cohorts as large as its memory allows."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from clients.device_memory import DeviceMemory, HostMemory, is_out_of_memory
from clients.shard import Shard
from clients.training import (
    LocalTraining,
    NoCohortError,
    Objective,
    State,
    StepHook,
    parameters_in,
    train,
    train_cohort,
    trainable,
)
from strategies.shapes import CPU, Tensor

SHARE_OF_FREE = 0.7  # for a cohort; the rest is kept for what a probe of two clients does not show
PROBE_STEPS = 2  # they show a round's peak: from the second step on the optimizer holds its state

Done = TypeVar("Done")


class Job(NamedTuple):
    """One model to train."""

    shard: Shard
    settings: LocalTraining
    make_rng: Callable[[], np.random.Generator]
    """Returns a fresh generator for the order of examples, since a job may be tried twice."""
    make_hook: Callable[[State], StepHook] | None = None
    """Returns an attacker's hook, given the received model."""
    objective: Objective | None = None
    """What is minimised in place of the mean cross-entropy."""
    start: State | None = None
    """What the model begins as; by default the received one."""

    @property
    def fits_cohort(self) -> bool:
        """Whether the job can be one of a cohort, which is trained as a single computation.

        An objective may keep count from step to step, and a start is its client's own.
        """
        return self.objective is None and self.start is None


class Trained(NamedTuple):
    """The result of a job."""

    state: State
    """All parameters and buffers: views on a cohort's matrix, or the model's own, which last until
    it is trained again."""
    loss: float
    """Mean loss over all examples seen."""
    row: Tensor | None = None
    """The row of the cohort's matrix."""
    names: tuple[str, ...] = ()
    """The parameters in the row, in order."""


class Trainer:
    """Trains on one device, and on the CPU if not even one client fits there.

    The first time, a cohort of one and one of two clients are probed, with those that have most
    examples. Memory grows by the difference with every client, which tells how many fit into
    ``SHARE_OF_FREE`` of the free memory. Where that turns out to be too many, cohorts are halved,
    and stay so. A model that draws random numbers while it trains, or keeps running means of its
    data, is trained for one client at a time, so that these do not depend on the rest of a cohort.

    Args:
        model: Gives the forward pass; moved to the device.
        memory: The device's memory.
        largest: The most clients trained at once; with 1 they are trained one by one, without a
            probe.
        note: Called with a line of text on every decision, once.
        stays_on_device: Whether results stay there; otherwise they come back to the host.
    """

    def __init__(
        self,
        model: nn.Module,
        memory: DeviceMemory,
        largest: int = 1,
        note: Callable[[str], None] = lambda text: None,
        *,
        stays_on_device: bool = False,
    ) -> None:
        self.memory, self.size = memory, largest
        self.model = model.to(memory.device)
        self._own = self.model.state_dict()
        self._note, self._probed = note, largest == 1
        self._fits_cohort = True
        self._stays_on_device = stays_on_device

    @property
    def device(self) -> torch.device:
        """Where models are trained."""
        return self.memory.device

    @property
    def _results_device(self) -> torch.device:
        return self.device if self._stays_on_device else CPU

    @torch.no_grad()
    def holding(self, received: State) -> nn.Module:
        """Return the model with these parameters and buffers."""
        for name, value in self._own.items():
            value.copy_(received[name])
        return self.model

    def one_by_one(self, received: State, jobs: Sequence[Job]) -> Iterator[Trained]:
        """Train jobs from the same model, each by itself; a state lasts until the next one."""
        for job in jobs:
            done = self._attempt(lambda job=job: self._train_one(received, job))
            if done is None:
                self._leave_device()
                done = self._train_one(received, job)
            yield done

    def together(self, received: State, jobs: Sequence[Job]) -> list[Trained]:
        """Train jobs from the same model, those of equal settings in cohorts.

        A job that fits no cohort is trained by itself.

        Raises:
            torch.OutOfMemoryError: If a cohort of one does not fit on the CPU either.
        """
        try:
            return self._together(received, jobs)
        except NoCohortError as reason:
            self._go_one_by_one(str(reason))
            return self._together(received, jobs)

    def _together(self, received: State, jobs: Sequence[Job]) -> list[Trained]:
        alone = [
            place for place, job in enumerate(jobs) if not (self._fits_cohort and job.fits_cohort)
        ]
        results: dict[int, Trained] = {}
        for place, done in zip(
            alone, self.one_by_one(received, [jobs[p] for p in alone]), strict=True
        ):
            results[place] = done._replace(state={n: v.clone() for n, v in done.state.items()})
        others = [place for place in range(len(jobs)) if place not in results]
        for settings in dict.fromkeys(jobs[place].settings for place in others):
            waiting = [place for place in others if jobs[place].settings == settings]
            while waiting:
                places = waiting[: self.size]
                cohort = [jobs[place] for place in places]
                done = self._attempt(lambda cohort=cohort: self._train_cohort(received, cohort))
                if done is None:
                    self._shrink(len(cohort))
                    continue
                results.update(zip(places, done, strict=True))
                waiting = waiting[len(places) :]
        return [results[place] for place in range(len(jobs))]

    def probe(self, received: State, jobs: Sequence[Job]) -> None:
        """Find out how many such jobs fit into memory at once, unless that is known already."""
        if self._probed or self.memory.free() is None:
            return
        self._probed = True
        largest = sorted(jobs, key=lambda job: -len(job.shard.labels))
        probes = [
            Job(job.shard, job.settings, lambda: np.random.default_rng(0))
            for job in (largest * 2)[:2]  # one client alone stands for two
        ]
        try:
            one, two = self._peak_of(received, probes[:1]), self._peak_of(received, probes)
        except NoCohortError as reason:
            self._go_one_by_one(str(reason))
            return
        if one is None or two is None:
            self._shrink(2)
            return
        each = max(1, two - one)
        budget = int(SHARE_OF_FREE * (self.memory.free() or 0))
        wanted, fits = self.size, max(1, (budget - (one - each)) // each)
        self.size = min(wanted, fits)
        if self.size < wanted or self.device.type != "cpu":  # else it is what the user asked for
            self._note(
                f"{self.device}: cohorts of {self.size} instead of {wanted} clients, as each takes "
                f"{_amount(each)} and {SHARE_OF_FREE:.0%} of free memory is {_amount(budget)}"
            )

    def _peak_of(self, received: State, jobs: Sequence[Job]) -> int | None:
        work = partial(self._rows, received, jobs, PROBE_STEPS)
        # One run before: libraries take a workspace the first time, whatever the number of clients.
        if self.device.type != "cpu" and self._attempt(work) is None:
            return None
        return self._attempt(lambda: self.memory.peak_of(work))

    def _train_one(self, received: State, job: Job) -> Trained:
        received = moved(received, self.device)
        start = received if job.start is None else moved(job.start, self.device)
        model = self.holding(start)
        hook = job.make_hook(received) if job.make_hook is not None else None
        shard = job.shard.to(self.device)
        if job.objective is not None:
            job.objective.begin(received, shard)
        loss = train(model, shard, job.settings, job.make_rng(), hook, job.objective)
        return Trained(moved(self._own, self._results_device), loss)

    def _train_cohort(self, received: State, jobs: Sequence[Job]) -> list[Trained]:
        rows, losses = self._rows(received, jobs)
        rows = rows.to(self._results_device)  # whole: one transfer, not one for each client
        received = moved(received, self._results_device)
        names = tuple(like := trainable(self.model, received))
        # Unbound parameter by parameter: cutting up rows one by one takes the host 5 times as long.
        states = zip(*(v.unbind() for v in parameters_in(rows, like).values()), strict=True)
        return [
            Trained({**received, **dict(zip(names, own, strict=True))}, loss, row, names)
            for own, loss, row in zip(states, losses.tolist(), rows, strict=True)
        ]

    def _rows(
        self, received: State, jobs: Sequence[Job], most_steps: int | None = None
    ) -> tuple[Tensor, Tensor]:
        received = moved(received, self.device)
        hooks = [job.make_hook(received) if job.make_hook is not None else None for job in jobs]
        return train_cohort(
            self.model,
            received,
            [job.shard.to(self.device) for job in jobs],
            jobs[0].settings,
            [job.make_rng() for job in jobs],
            hooks if any(hooks) else None,
            most_steps,
        )

    def _attempt(self, work: Callable[[], Done]) -> Done | None:
        """Return what the work returns, or None if memory runs out."""
        try:
            with self.memory.limited():
                return work()
        except Exception as fault:
            if not is_out_of_memory(fault):
                raise
        # Out here, where the exception no longer holds on to what the work had made.
        self.memory.release()
        return None

    def _go_one_by_one(self, reason: str) -> None:
        self.size, self._fits_cohort = 1, False
        self._note(reason)

    def _shrink(self, tried: int) -> None:
        if tried > 1:
            self.size = max(1, tried // 2)
            self._note(f"{self.device}: out of memory, cohorts of {self.size} instead of {tried}")
        else:
            self._leave_device()

    def _leave_device(self) -> None:
        if isinstance(self.memory, HostMemory):
            raise torch.OutOfMemoryError(
                "one client does not fit into memory: lower training.batch_size"
            )
        self._note(f"{self.device}: out of memory with a single client, continuing on the CPU")
        self.model.to(CPU)
        self._own = self.model.state_dict()
        self.memory.release()
        self.memory = HostMemory()


def device_of(state: State) -> torch.device:
    """Return where a state is."""
    return next(iter(state.values())).device


def moved(state: State, device: torch.device) -> State:
    """Return a state on a device; the same object if it is there already."""
    if all(value.device == device for value in state.values()):
        return state
    return {name: value.to(device) for name, value in state.items()}


def _amount(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.1f} MiB" if n_bytes >= 2**20 else f"{n_bytes / 2**10:.1f} KiB"
