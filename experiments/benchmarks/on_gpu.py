"""Thousands of clients on one GPU: training in cohorts, and rules on a large matrix.

Needs torch, numpy, and ``clients`` and ``strategies`` from this repository: a bare machine with
CUDA is enough, without Flower, Ray or an installation.

    PYTHONPATH=. python experiments/benchmarks/on_gpu.py          # adds a row per figure to gpu.csv
    PYTHONPATH=. python experiments/benchmarks/on_gpu.py --tiny   # anywhere: shows that it runs

Takes a few minutes. Without a GPU the table says so in place of each figure. If a figure cannot be
measured, the table says why in its place, and the others are still measured.
"""

import argparse
import csv
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from networks import Cnn, shard_of
from torch import nn

from clients import training
from clients.device_memory import CudaMemory, DeviceMemory, HostMemory
from clients.reporting import report_of
from clients.trainer import Job, Trained, Trainer
from clients.training import LocalTraining, State
from strategies.aggregation import (
    Aggregate,
    coordinate_median,
    krum,
    mean,
    multi_krum,
    norm_clipping,
    trimmed_mean,
)
from strategies.aggregation.aggregate import norms_of
from strategies.pipeline import Pipeline, RoundFacts

RESULTS = Path(__file__).with_name("gpu.csv")
COLUMNS = ("date", "figure", "value", "unit", "wanted", "peak_gib", "hardware", "torch")
NONE_AT_HAND = "no accelerator at hand"
REPEATS = 9  # of which the median counts; one warm-up before is not counted
TRAINING = LocalTraining(lr=0.05, batch_size=20)
Rule = Callable[[torch.Tensor], Aggregate]


class Sizes(NamedTuple):
    """How large everything is."""

    clients: int
    one_by_one: int
    """How many of the clients are timed one by one: each further one would take as long."""
    examples: int
    hidden: int
    tested: int
    rows: int
    parameters: int


FULL = Sizes(1_000, 100, 60, 300, 10_000, 1_000, 1_000_000)
TINY = Sizes(6, 2, 20, 8, 40, 25, 2_000)

ONE_BY_ONE, COHORTS, GROUPED, SEARCHED, ROUND, APART = (
    f"170k-parameter CNN, 1000 clients x 60: {what}"
    for what in (
        "one by one",
        "cohorts",
        "cohorts, torch's grouped convolutions",
        "cohorts, torch's grouped convolutions, the fastest that cudnn.benchmark finds",
        "cohorts, multi_krum, contributions, evaluation",
        "cohorts and one by one apart after one step, largest of all parameters",
    )
)
FASTER, RETAINED = f"{COHORTS} / one by one", f"{ROUND}, retained"
READING, SORT, GRAM = (f"1000 x 1M: {what}" for what in ("one reading", "torch.sort", "U @ U.T"))
RULES: dict[str, tuple[Rule, str, str]] = {
    "mean": (mean, READING, "<= 3"),
    "norm_clipping": (norm_clipping, READING, "<= 3"),
    "krum": (lambda rows: krum(rows, len(rows) // 5), GRAM, "<= 1.5"),
    "multi_krum": (lambda rows: multi_krum(rows, len(rows) // 5), GRAM, "<= 1.5"),
    "coordinate_median": (coordinate_median, SORT, "<= 2"),
    "trimmed_mean": (lambda rows: trimmed_mean(rows, len(rows) // 5), SORT, "<= 2"),
}
"""Rules, the operation that their time is compared with, and at most how many times it."""
YARDSTICKS: dict[str, Callable[[torch.Tensor], object]] = {
    READING: torch.sum,
    SORT: lambda rows: torch.sort(rows, dim=0),
    GRAM: lambda rows: rows @ rows.T,
}
UNITS = (
    dict.fromkeys(YARDSTICKS, ("ms", ""))
    | {f"{rule} / {what}": ("x", wanted) for rule, (_, what, wanted) in RULES.items()}
    | {APART: ("", "<= 1e-06")}
    | dict.fromkeys((ONE_BY_ONE, COHORTS, ROUND), ("clients/s", ""))
    | {FASTER: ("x", ">= 20"), RETAINED: ("%", ">= 60")}
    | dict.fromkeys((GROUPED, SEARCHED), ("clients/s", ""))
)
"""Every figure: its unit, and its target, if any."""


class Round:
    """A round of all clients whose data, model and updates stay on a device."""

    def __init__(self, memory: DeviceMemory, sizes: Sizes) -> None:
        device = memory.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Cnn(sizes.hidden).to(device, memory_format=torch.channels_last)
        self.start = {name: value.clone() for name, value in model.state_dict().items()}
        self.jobs = [
            Job(
                shard_of(client, sizes.examples).to(device),
                TRAINING,
                partial(np.random.default_rng, [1, client]),
            )
            for client in range(sizes.clients)
        ]
        self.test = shard_of(sizes.clients, sizes.tested).to(device)
        self.trainer = Trainer(model, memory, sizes.clients, print, stays_on_device=True)
        self.alone = self.jobs[: sizes.one_by_one]
        self.flat = flat(self.start)
        self.matrix = torch.empty(sizes.clients, len(self.flat), device=device)
        self.pipeline = Pipeline(partial(multi_krum, n_malicious=sizes.clients // 5))

    def one_by_one(self) -> None:
        for _ in self.trainer.one_by_one(self.start, self.alone):
            pass

    def cohorts(self) -> list[Trained]:
        self.trainer.probe(self.start, self.jobs)  # only once; timed, as it may fail
        return self.trainer.together(self.start, self.jobs)

    def apart(self) -> float:
        """Return the largest difference between parameters after one step alone and in a cohort."""
        step = replace(TRAINING, batch_size=len(self.test.labels))
        jobs = [job._replace(settings=step) for job in self.alone]
        alone = [flat(done.state) for done in self.trainer.one_by_one(self.start, jobs)]
        together = [flat(done.state) for done in self.trainer.together(self.start, jobs)]
        return (torch.stack(alone) - torch.stack(together)).abs().max().item()

    def whole(self) -> float:
        """Train, check all updates as the server does, aggregate, read all figures, test."""
        for row, done in zip(self.matrix, self.cohorts(), strict=True):
            assert done.row is not None
            torch.sub(done.row, self.flat, out=row)
        assert all(map(math.isfinite, norms_of(self.matrix).tolist()))
        facts = RoundFacts.of_equals(len(self.matrix), np.random.default_rng(0))
        step = self.pipeline(self.matrix, facts, {}, overwrite=True)
        for ledger in (step.result.weights, step.contribution, step.result.suspicion):
            ledger.tolist()
        return report_of(self.model_after(step.result.update), self.test).loss

    def model_after(self, update: torch.Tensor) -> nn.Module:
        parts = (self.flat + update).split([value.numel() for value in self.start.values()])
        state: State = {
            name: part.view(value.shape)
            for part, (name, value) in zip(parts, self.start.items(), strict=True)
        }
        return self.trainer.holding(state)


def flat(state: State) -> torch.Tensor:
    return torch.cat([value.flatten() for value in state.values()])


@contextmanager
def grouped_convolutions(search: bool) -> Iterator[None]:
    """Make cohorts use torch's own convolutions under vmap, not our products of matrices."""
    torch.backends.cudnn.benchmark = search
    with mock.patch.object(training, "ConvolutionsAsProducts", nullcontext):
        yield
    torch.backends.cudnn.benchmark = False


class Measurements:
    """Measures figure after figure, and reports each at once, since a later one may fail.

    Args:
        memory: The device's memory.
        tell: Is told a figure's name, its value or why there is none, and its peak memory in GiB.
        patience_s: Work is not repeated once it has taken this long, not counting its first time.
    """

    def __init__(
        self,
        memory: DeviceMemory,
        tell: Callable[[str, str, str], None],
        patience_s: float = 20.0,
    ) -> None:
        self._memory, self._tell, self._patience_s = memory, tell, patience_s
        self.values: dict[str, float] = {}

    def of(
        self,
        figure: str,
        value: Callable[[], float],
        setting: AbstractContextManager[object] | None = None,
    ) -> None:
        """Measure and report a figure, inside a context manager if one is given."""
        on_gpu = self._memory.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self._memory.device)
        try:
            with setting or nullcontext():
                self.values[figure] = value()
            shown = f"{self.values[figure]:.4g}"
        except Exception as fault:
            first, *_ = str(fault).splitlines() or [""]
            shown = f"failed: {type(fault).__name__} {first}"
        peak = torch.cuda.max_memory_allocated(self._memory.device) / 2**30 if on_gpu else None
        self._tell(figure, shown, "" if peak is None else f"{peak:.3g}")
        self._memory.release()

    def seconds(self, work: Callable[[], object]) -> float:
        """Return the median seconds of some work, not counting its first time."""
        times: list[float] = []
        while len(times) < 2 or (len(times) <= REPEATS and sum(times) < self._patience_s):
            self._synchronise()
            began = time.perf_counter()
            work()
            self._synchronise()
            times.append(time.perf_counter() - began)
        return statistics.median(times[1:])

    def _synchronise(self) -> None:
        if self._memory.device.type == "cuda":
            torch.cuda.synchronize(self._memory.device)


def measure_rules(memory: DeviceMemory, sizes: Sizes, taken: Measurements) -> None:
    torch.manual_seed(0)
    rows = torch.randn(sizes.rows, sizes.parameters, device=memory.device)

    def milliseconds(work: Callable[[torch.Tensor], object]) -> float:
        return 1_000 * taken.seconds(lambda: work(rows))

    for name, yardstick in YARDSTICKS.items():
        taken.of(name, partial(milliseconds, yardstick))
    for name, (rule, what, _) in RULES.items():
        taken.of(
            f"{name} / {what}",
            lambda rule=rule, what=what: milliseconds(rule) / taken.values[what],
        )


def measure_training(memory: DeviceMemory, sizes: Sizes, taken: Measurements) -> None:
    n, values, seconds = sizes.clients, taken.values, taken.seconds
    round_ = Round(memory, sizes)
    taken.of(APART, round_.apart)
    taken.of(ONE_BY_ONE, lambda: sizes.one_by_one / seconds(round_.one_by_one))
    taken.of(COHORTS, lambda: n / seconds(round_.cohorts))
    taken.of(ROUND, lambda: n / seconds(round_.whole))
    taken.of(FASTER, lambda: values[COHORTS] / values[ONE_BY_ONE])
    taken.of(RETAINED, lambda: 100 * values[ROUND] / values[COHORTS])
    for figure, search in ((GROUPED, False), (SEARCHED, True)):
        taken.of(figure, lambda: n / seconds(round_.cohorts), grouped_convolutions(search))


def write(figure: str, shown: str, peak: str, hardware: str) -> None:
    """Add a row to the table."""
    fresh = not RESULTS.exists()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with RESULTS.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow(COLUMNS)
        row = (now, figure, shown, *UNITS[figure], peak, hardware, torch.__version__)
        writer.writerow(row)


def hardware_name() -> str:
    """Return the GPU, its software, and the host's cores, which training one by one waits for."""
    cores = f"{os.cpu_count()} cores"
    if not torch.cuda.is_available():
        return f"CPU, {cores}"
    gpu = torch.cuda.get_device_properties(0)
    return (
        f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, "
        f"cuDNN {torch.backends.cudnn.version()}, {cores}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small sizes, and no row is written")
    tiny = parser.parse_args().tiny
    # As in the engine: full float32, and deterministic kernels.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    on_gpu = torch.cuda.is_available()
    hardware = hardware_name() if tiny or on_gpu else "none"

    def tell(figure: str, shown: str, peak: str) -> None:
        unit, wanted = UNITS[figure]
        print(f"{figure:<112} {shown:>10} {unit:<10} {wanted:<10} {peak}", flush=True)
        if not tiny:
            write(figure, shown, peak, hardware)

    if not tiny and not on_gpu:
        for figure in UNITS:
            tell(figure, NONE_AT_HAND, "")
        return
    if tiny:
        print(f"sizes as small as can be, on {hardware}: these figures say nothing")
    memory = CudaMemory(torch.device("cuda:0")) if on_gpu else HostMemory(lambda: 2**30)
    sizes, taken = FULL, Measurements(memory, tell)
    if tiny:
        sizes, taken = TINY, Measurements(memory, tell, patience_s=0)
    measure_rules(memory, sizes, taken)
    memory.release()
    measure_training(memory, sizes, taken)


if __name__ == "__main__":
    main()
