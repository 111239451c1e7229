"""Seconds per client message and peak memory: this engine against Flower's stock engine.

Both run the same ServerApp logic (``RobustFedAvg`` through Flower's own ``Strategy.start``) and the
same ClientApp, which returns a new model without training. Settings run one after the other, each
engine in a process of its own; the first round is not counted.

    python experiments/benchmarks/engine_against_flower.py
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from functools import partial

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from measure import PeakMemory, report, tree_memory

from fl_testbed.engine.threads import limit_threads
from strategies.aggregation import mean, multi_krum
from strategies.robust import RobustFedAvg

SIZES = ((200, 100_000), (1_000, 100_000), (200, 1_000_000))
MEMORY_SIZE = (200, 1_000_000)


class FreshModel(ClientApp):
    """Returns the received model, changed a little, as a client that trained would."""

    def __init__(self) -> None:
        super().__init__()
        self.train()(answer)


def answer(message: Message, context: Context) -> Message:
    received = message.content.array_records["arrays"]
    state = {name: torch.tensor(array.numpy()).add_(1e-3) for name, array in received.items()}
    metrics = MetricRecord({"num-examples": 10, "train-loss": 1.0})
    content = RecordDict({"arrays": ArrayRecord(state), "metrics": metrics})
    return Message(content, reply_to=message)


def initial_arrays(d: int) -> ArrayRecord:
    """Return four arrays of d numbers in all, like those of a network with one hidden layer."""
    width = d // 2 - 100
    sizes = (width, 100, d - width - 200, 100)
    return ArrayRecord([np.zeros(size, dtype=np.float32) for size in sizes])


def serve(grid: Grid, n: int, d: int, rounds: int, rule: str) -> list[float]:
    """Run rounds on a grid and return the seconds of each."""
    limit_threads(1)
    aggregate = partial(multi_krum, n_malicious=n // 10) if rule == "multi_krum" else mean
    strategy = RobustFedAvg(
        aggregate,
        fraction_evaluate=0.0,
        min_train_nodes=n,
        min_evaluate_nodes=0,
        min_available_nodes=n,
    )
    ends: list[float] = []
    strategy.start(
        grid,
        initial_arrays(d),
        num_rounds=rounds,
        evaluate_fn=lambda round_, arrays: ends.append(time.perf_counter()),
    )
    return np.diff(ends).tolist()


def on_ours(n: int, d: int, rounds: int, rule: str, watch_memory: bool) -> dict[str, object]:
    from fl_testbed.engine.ray_grid import RayGrid
    from fl_testbed.engine.ray_pool import RayPool

    pool = RayPool(2)
    cohort = pool.prepare(lambda data: FreshModel(), None, torch_threads=1)
    grid = RayGrid(pool, cohort, client_timeout_s=600.0)
    grid.sample = range(n)
    grid.keep_order = rule == "mean"  # as the round loop sets it
    if not watch_memory:
        return {"seconds": serve(grid, n, d, rounds, rule)}
    idle = tree_memory()
    with PeakMemory() as memory:  # it costs time, so seconds are measured without it
        serve(grid, n, d, rounds, rule)
    return {"idle": idle, "peak": memory.peak}


def on_flower(n: int, d: int, rounds: int, rule: str, watch_memory: bool) -> dict[str, object]:
    from flwr.simulation import run_simulation

    seconds: list[float] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        seconds.extend(serve(grid, n, d, rounds, rule))

    run_simulation(
        server_app=server,
        client_app=FreshModel(),
        num_supernodes=n,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {
                "address": "local",
                "num_cpus": 2,
                "include_dashboard": False,
                "log_to_driver": False,
            },
        },
    )
    return {"seconds": seconds}


def measured(
    engine: str, n: int, d: int, rounds: int, rule: str, what: str = "seconds"
) -> dict[str, object]:
    """Measure one engine in a process of its own."""
    arguments = [engine, str(n), str(d), str(rounds), rule, what]
    command = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stdout[-2_000:] + done.stderr[-4_000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="the first is left out")
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        engine, n, d, rounds, rule, what = arguments.child
        run = {"ours": on_ours, "flower": on_flower}[engine]
        print(json.dumps(run(int(n), int(d), int(rounds), rule, what == "memory")))
        return
    for n, d in SIZES:
        per_message = {}
        for engine in ("ours", "flower"):
            result = measured(engine, n, d, arguments.rounds, "mean")
            seconds = result["seconds"]
            assert isinstance(seconds, list)
            per_message[engine] = statistics.median(seconds[1:]) / n * 1e3
        figures = {
            "this engine, per message": (per_message["ours"], "ms"),
            "stock engine, per message": (per_message["flower"], "ms"),
            "stock / this": (per_message["flower"] / per_message["ours"], "x"),
        }
        report("engine_against_flower", f"{n} clients x {d} parameters", figures)
    n, d = MEMORY_SIZE
    for rule in ("multi_krum", "mean"):
        result = measured("ours", n, d, 3, rule, "memory")
        above = (int(str(result["peak"])) - int(str(result["idle"]))) / (4 * n * d)
        figures = {f"{rule}: peak memory above idle / 4nd": (above, "x")}
        report("engine_against_flower", f"{n} clients x {d} parameters", figures)


if __name__ == "__main__":
    main()
