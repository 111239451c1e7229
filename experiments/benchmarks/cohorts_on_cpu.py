"""Seconds per round of many tiny clients: cohorts against one client after the other.

1,000 clients of 20 examples of 28 × 28 pixels, logistic regression, batches of 10, under the mean.
Timed are whole rounds through the engine (messages, training, checks, ledger): in one process,
where the two sides take turns, and on two Ray workers. The scenario's key is ``training.cohort``.

    python experiments/benchmarks/cohorts_on_cpu.py
"""

import statistics
import time
from collections.abc import Iterable, Iterator
from functools import cache, partial

import ray
from flwr.app import ArrayRecord, ConfigRecord
from measure import report
from networks import shard_of
from torch import nn

from clients.app import ShardClientApp
from clients.training import LocalTraining
from fl_testbed.engine.grid import ClientGrid
from fl_testbed.engine.inline_grid import InlineGrid
from fl_testbed.engine.ray_grid import RayGrid
from fl_testbed.engine.ray_pool import RayPool
from fl_testbed.engine.threads import keep_freed_memory, limit_threads
from fl_testbed.scenario.flower_strategy import TAKES_ALL
from strategies.aggregation import mean
from strategies.robust import RobustFedAvg

N_CLIENTS, N_EXAMPLES, COHORT = 1_000, 20, 100
ROUNDS = 6  # the first is not counted


def build_app(training: LocalTraining, cohort: int, data: None) -> ShardClientApp:
    shards = cache(partial(shard_of, n_examples=N_EXAMPLES))
    return ShardClientApp(shards, model, training, seed=0, cohort=cohort)


def model() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def rounds(grid: ClientGrid) -> Iterator[float]:
    """Yield the seconds of each round."""
    strategy = RobustFedAvg(mean, averages_metrics=False, **TAKES_ALL)  # as in the engine's runs
    grid.sample = list(range(N_CLIENTS))
    arrays = ArrayRecord(model().state_dict())
    for round_ in range(1, ROUNDS + 1):
        began = time.perf_counter()
        messages = strategy.configure_train(round_, arrays, ConfigRecord(), grid)
        new, _ = strategy.aggregate_train(round_, grid.send_and_receive(messages))
        arrays = new or arrays
        yield time.perf_counter() - began


def told(setting: str, pairs: Iterable[tuple[float, float]]) -> None:
    """Report rounds that were timed one by one and in cohorts."""
    pairs = list(pairs)[1:]
    slow, fast = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    figures = {
        "one by one, per round": (slow, "s"),
        f"cohorts of {COHORT}, per round": (fast, "s"),
        "one by one / cohorts": (ratio, "x"),
    }
    report("cohorts_on_cpu", setting, figures)


def main() -> None:
    limit_threads(1)
    keep_freed_memory()
    settings = {
        f"{N_CLIENTS} x {N_EXAMPLES}, {epochs} local epochs": LocalTraining(
            lr=0.05, batch_size=10, local_epochs=epochs
        )
        for epochs in (1, 5)
    }
    for setting, training in settings.items():
        one, other = (InlineGrid(build_app(training, n, None), 600.0) for n in (1, COHORT))
        told(f"{setting}, inline", zip(rounds(one), rounds(other), strict=True))
    pool = RayPool(2)
    for setting, training in settings.items():
        times = []
        for cohort in (1, COHORT):
            pool.prepare(partial(build_app, training, cohort), None, torch_threads=1)
            times.append(list(rounds(RayGrid(pool, cohort, client_timeout_s=600.0))))
        told(f"{setting}, 2 workers", zip(*times, strict=True))
    ray.shutdown()


if __name__ == "__main__":
    main()
