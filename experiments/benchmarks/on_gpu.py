"""Thousands of clients on one GPU: training in cohorts, and rules on a large matrix.

Needs torch, numpy and scipy, and of this repository ``clients`` and ``strategies``: a bare machine
with CUDA will do, without Flower, Ray or an installation.

    PYTHONPATH=. python experiments/benchmarks/on_gpu.py          # adds a row per figure to gpu.csv
    PYTHONPATH=. python experiments/benchmarks/on_gpu.py --tiny   # anywhere: shows that it runs

Without a GPU the table says so in place of each figure.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from networks import Cnn, shard_of
from torch import nn

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
from strategies.pipeline import Pipeline, RoundFacts

RESULTS = Path(__file__).with_name("gpu.csv")
COLUMNS = ("date", "figure", "value", "unit", "wanted", "hardware", "torch")
NONE_AT_HAND = "no accelerator at hand"
REPEATS = 5  # the median counts; one more comes first and is left out
TRAINING = LocalTraining(lr=0.05, batch_size=20)
Rule = Callable[[torch.Tensor], Aggregate]


class Sizes(NamedTuple):
    """How large everything is."""

    clients: int
    one_by_one: int
    """Of the clients, those that are timed one by one: the others would take as long each."""
    examples: int
    hidden: int
    tested: int
    rows: int
    parameters: int


FULL = Sizes(1_000, 100, 60, 300, 10_000, 1_000, 1_000_000)
TINY = Sizes(6, 2, 20, 8, 40, 25, 2_000)

ONE_BY_ONE, COHORTS, ROUND = (
    f"170k-parameter CNN, 1000 clients x 60: {what}"
    for what in ("one by one", "cohorts", "cohorts, multi_krum, contributions, evaluation")
)
READING, SORT, GRAM = (f"1000 x 1M: {what}" for what in ("one reading", "torch.sort", "U @ U.T"))
RULES: dict[str, tuple[Rule, str, str]] = {
    "mean": (mean, READING, "<= 3"),
    "norm_clipping": (norm_clipping, READING, "<= 3"),
    "krum": (lambda rows: krum(rows, len(rows) // 5), GRAM, "<= 1.5"),
    "multi_krum": (lambda rows: multi_krum(rows, len(rows) // 5), GRAM, "<= 1.5"),
    "coordinate_median": (coordinate_median, SORT, "<= 2"),
    "trimmed_mean": (lambda rows: trimmed_mean(rows, len(rows) // 5), SORT, "<= 2"),
}
"""Rules, what their time is compared with, and how many times that they may take."""
YARDSTICKS: dict[str, Callable[[torch.Tensor], object]] = {
    READING: torch.sum,
    SORT: lambda rows: torch.sort(rows, dim=0),
    GRAM: lambda rows: rows @ rows.T,
}
UNITS = (
    dict.fromkeys((ONE_BY_ONE, COHORTS, ROUND), ("clients/s", ""))
    | {f"{COHORTS} / one by one": ("x", ">= 20"), f"{ROUND}, retained": ("%", ">= 60")}
    | dict.fromkeys(YARDSTICKS, ("ms", ""))
    | {f"{rule} / {what}": ("x", wanted) for rule, (_, what, wanted) in RULES.items()}
)
"""Every figure: its unit, and what it should be."""


def seconds(device: torch.device, work: Callable[[], object]) -> float:
    """Return the median time of some work, after a first time that is left out."""
    times = []
    for _ in range(1 + REPEATS):
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
        self.trainer.probe(self.start, self.jobs)
        self.alone = self.jobs[: sizes.one_by_one]
        self.flat = torch.cat([value.flatten() for value in self.start.values()])
        self.matrix = torch.empty(sizes.clients, len(self.flat), device=device)
        self.pipeline = Pipeline(partial(multi_krum, n_malicious=sizes.clients // 5))

    def one_by_one(self) -> None:
        for _ in self.trainer.one_by_one(self.start, self.alone):
            pass

    def cohorts(self) -> list[Trained]:
        return self.trainer.together(self.start, self.jobs)

    def whole(self) -> float:
        """Train, check each update as the server does, aggregate, note all figures, test."""
        for row, done in zip(self.matrix, self.cohorts(), strict=True):
            assert done.row is not None
            norm = row.copy_(done.row).sub_(self.flat)
            assert torch.linalg.vector_norm(norm, dtype=torch.float64).isfinite()
        n = len(self.matrix)
        nobody_asked = torch.full((n,), torch.nan, dtype=torch.float64)
        facts = RoundFacts(
            round_=1,
            clients=torch.arange(n),
            prior=torch.full((n,), 1 / n, dtype=torch.float64),
            losses=nobody_asked,
            confidences=nobody_asked,
            server_update=lambda: self.flat,
            evaluate=lambda update: (0.0, 0.0),
            rng=np.random.default_rng(0),
        )
        step = self.pipeline(self.matrix, facts, {})
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


def measured(memory: DeviceMemory, sizes: Sizes) -> dict[str, float]:
    """Return the value of every figure."""
    device = memory.device
    round_ = Round(memory, sizes)
    one = sizes.one_by_one / seconds(device, round_.one_by_one)
    many = sizes.clients / seconds(device, round_.cohorts)
    whole = sizes.clients / seconds(device, round_.whole)
    figures = {ONE_BY_ONE: one, COHORTS: many, ROUND: whole}
    figures |= {f"{COHORTS} / one by one": many / one, f"{ROUND}, retained": 100 * whole / many}
    del round_
    memory.release()
    rows = torch.randn(sizes.rows, sizes.parameters, device=device)
    took = {name: seconds(device, partial(work, rows)) for name, work in YARDSTICKS.items()}
    figures |= {name: 1_000 * value for name, value in took.items()}
    for name, (rule, what, _) in RULES.items():
        figures[f"{name} / {what}"] = seconds(device, partial(rule, rows)) / took[what]
    return figures


def write(figures: dict[str, str], hardware: str) -> None:
    """Add a row per figure to the table."""
    fresh = not RESULTS.exists()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with RESULTS.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow(COLUMNS)
        for name, value in figures.items():
            writer.writerow((now, name, value, *UNITS[name], hardware, torch.__version__))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small sizes, and no row is written")
    tiny = parser.parse_args().tiny
    # As the engine asks: full float32, and kernels that repeat.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    on_gpu = torch.cuda.is_available()
    memory = CudaMemory(torch.device("cuda:0")) if on_gpu else HostMemory(lambda: 2**30)
    hardware = torch.cuda.get_device_name(0) if on_gpu else "CPU"
    if tiny or on_gpu:
        if tiny:
            print(f"sizes as small as can be, on {hardware}: these figures say nothing")
        figures = measured(memory, TINY if tiny else FULL)
        shown = {name: f"{figures[name]:.4g}" for name in UNITS}
    else:
        shown, hardware = dict.fromkeys(UNITS, NONE_AT_HAND), "none"
    for name, (unit, wanted) in UNITS.items():
        print(f"{name:<96} {shown[name]:>10} {unit:<10} {wanted}")
    if not tiny:
        write(shown, hardware)


if __name__ == "__main__":
    main()
