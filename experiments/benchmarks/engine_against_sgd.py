"""Seconds per round, beside bare PyTorch doing the same SGD steps, and beside pfl-research.

The bare processes train the same shards in the same order with a plain PyTorch loop, and neither
send nor aggregate. Evaluation and the loss of the received model are off on all sides; this engine
runs with 2 workers, Multi-Krum or the mean, and the ledger.

    python experiments/benchmarks/engine_against_sgd.py
    python experiments/benchmarks/engine_against_sgd.py --pfl "PFL_PYTHON PFL_SCRIPT"

where PFL_PYTHON is the Python of an environment with ``pfl[pytorch]``, and PFL_SCRIPT a script that
runs its benchmark and takes ``--threads`` and ``--json``.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import tempfile
import time
from functools import cache, partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, ConfigRecord
from measure import report
from networks import Cnn, shard_of

from clients.app import ShardClientApp
from clients.training import LocalTraining, batches
from fl_testbed.engine.threads import limit_threads
from fl_testbed.scenario.flower_strategy import TAKES_ALL
from strategies.aggregation import Aggregator, mean, multi_krum
from strategies.robust import RobustFedAvg

SETTINGS = {
    "pfl: 20 of 100 clients x 60": (100, 20, 60, LocalTraining(lr=0.05, batch_size=20)),
    "CNN: 200 clients x 60": (200, 200, 60, LocalTraining(lr=0.05, batch_size=20)),
}
ROUNDS = 6  # the first is left out


def engine_seconds(
    n: int, sampled: int, examples: int, training: LocalTraining, rule: Aggregator
) -> list[float]:
    import ray

    from fl_testbed.engine.ray_grid import RayGrid
    from fl_testbed.engine.ray_pool import RayPool

    limit_threads(1)
    pool = RayPool(2)
    cohort = pool.prepare(partial(build_app, examples, training), None, torch_threads=1)
    grid = RayGrid(pool, cohort, client_timeout_s=600.0)
    strategy = RobustFedAvg(rule, averages_metrics=False, **TAKES_ALL)  # as in the engine's runs
    arrays = ArrayRecord(Cnn().state_dict())
    n_parameters = sum(value.numel() for value in Cnn().parameters())
    seconds = []
    for round_ in range(1, ROUNDS + 1):
        began = time.perf_counter()
        rng = np.random.default_rng(round_)
        grid.sample = sorted(rng.choice(n, size=sampled, replace=False).tolist())
        grid.keep_order = strategy.keeps_running_sum(sampled, n_parameters)
        messages = strategy.configure_train(round_, arrays, ConfigRecord(), grid)
        new, _ = strategy.aggregate_train(round_, grid.send_and_receive(messages))
        arrays = new or arrays
        seconds.append(time.perf_counter() - began)
    ray.shutdown()
    return seconds[1:]


def build_app(examples: int, training: LocalTraining, data: None) -> ShardClientApp:
    return ShardClientApp(cache(partial(shard_of, n_examples=examples)), Cnn, training, seed=0)


def bare_seconds(n: int, sampled: int, examples: int, training: LocalTraining) -> list[float]:
    """Return the seconds per round of two processes, each with half of the clients, that start each
    round together."""
    context = get_context("spawn")
    barrier = context.Barrier(3)
    halves = [range(0, sampled, 2), range(1, sampled, 2)]
    processes = [
        context.Process(target=bare_process, args=(barrier, half, examples, training))
        for half in halves
    ]
    for process in processes:
        process.start()
    seconds = []
    for _ in range(ROUNDS):
        barrier.wait()
        began = time.perf_counter()
        barrier.wait()
        seconds.append(time.perf_counter() - began)
    for process in processes:
        process.join()
    return seconds[1:]


def bare_process(barrier: Barrier, clients: range, examples: int, training: LocalTraining) -> None:
    torch.set_num_threads(1)
    model, start = Cnn(), Cnn().state_dict()
    shards = [shard_of(client, examples) for client in clients]
    for round_ in range(ROUNDS):
        barrier.wait()
        for client, shard in zip(clients, shards, strict=True):
            model.load_state_dict(start)
            optimizer = torch.optim.SGD(model.parameters(), lr=training.lr)
            for batch in batches(
                len(shard.labels), training, np.random.default_rng([round_, client])
            ):
                rows = torch.from_numpy(batch)
                optimizer.zero_grad()
                F.cross_entropy(model(shard.inputs[rows]), shard.labels[rows]).backward()
                optimizer.step()
        barrier.wait()


def pfl_seconds(command: str) -> float:
    """Return pfl-research's median seconds per round with 1 or 2 threads, whichever is faster."""
    medians = []
    for threads in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            arguments = ["--threads", str(threads), "--json", str(result)]
            subprocess.run([*shlex.split(command), *arguments], check=True, capture_output=True)
            medians.append(json.loads(result.read_text())["summary"]["median_s_per_round"])
    return min(medians)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pfl", help="command that runs pfl-research's benchmark")
    arguments = parser.parse_args()
    for setting, sizes in SETTINGS.items():
        krum = partial(multi_krum, n_malicious=sizes[1] // 10)
        ours = statistics.median(engine_seconds(*sizes, krum))
        averaging = statistics.median(engine_seconds(*sizes, mean))
        bare = statistics.median(bare_seconds(*sizes))
        figures = {
            "this engine with Multi-Krum, per round": (ours, "s"),
            "this engine with the mean, per round": (averaging, "s"),
            "two bare processes, per round": (bare, "s"),
            "this with Multi-Krum / bare": (ours / bare, "x"),
            "this with the mean / bare": (averaging / bare, "x"),
        }
        if arguments.pfl and setting.startswith("pfl"):
            pfl = pfl_seconds(arguments.pfl)
            figures["pfl-research, per round"] = (pfl, "s")
            figures["this with Multi-Krum / pfl"] = (ours / pfl, "x")
        report("engine_against_sgd", setting, figures)


if __name__ == "__main__":
    main()
