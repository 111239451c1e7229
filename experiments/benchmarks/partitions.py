"""Seconds to share out data of Fashion-MNIST's size: 60,000 examples, 10 classes.

    python experiments/benchmarks/partitions.py

Timed is everything from the scenario to the rows of every client. 100,000 clients cannot each hold
an example of their own, so their shards overlap; each draws its rows when asked, and all are asked.
"""

import time

import numpy as np
from measure import report

from fl_testbed.data import Dataset, Examples
from fl_testbed.engine.assembly import build_federation
from fl_testbed.scenario import Scenario

N, CLASSES, WRITERS = 60_000, 10, 3_000
DISJOINT = {
    "iid": {"kind": "iid"},
    "quantity": {"kind": "quantity", "alpha": 0.5},
    "dirichlet by client": {"kind": "dirichlet", "alpha": 0.5},
    "dirichlet by class": {"kind": "dirichlet", "alpha": 0.5, "min_examples": 1},
    "pathological": {"kind": "pathological", "shards_per_client": 2},
    "natural": {"kind": "natural", "merge": True},
}
NO_SIZE = ("dirichlet by class",)
NEED_MORE_CLASSES = ("dirichlet by class", "natural")
OVERLAPPING = {"iid": DISJOINT["iid"], "dirichlet by client": DISJOINT["dirichlet by client"]}
LABEL_NINE = {"kind": "attributes", "by": ["label"], "groups": ["9"]}
GROUPS = {"styles": {"kind": "inverted"}, "own groups": LABEL_NINE}


def fashion_mnist_sized() -> Dataset:
    """Return constant images with random labels and writers: partitions read nothing else."""
    rng = np.random.default_rng(0)

    def examples(n: int) -> Examples:
        labels = rng.integers(CLASSES, size=n)
        return Examples(np.zeros((n, 1, 1, 1), np.uint8), labels, {}, rng.integers(WRITERS, size=n))

    return Dataset("sized", examples(N), examples(100), tuple("0123456789"))


def scenario(n_clients: int, partition: dict, minority: dict, **clients: object) -> Scenario:
    counts = {
        "honest_majority": n_clients - 2 * (n_clients // 10),
        "honest_minority": n_clients // 10,
        "poisoned": n_clients // 10,
    }
    return Scenario.model_validate(
        {
            "name": "partitions",
            "rounds": 1,
            "dataset": {"kind": "fashion_mnist", "minority": minority},
            "model": {"kind": "logistic_regression"},
            "clients": {**counts, **clients},
            "partition": partition,
            "training": {"lr": 0.1, "batch_size": 10},
            "strategy": {"aggregation": {"kind": "mean"}},
        }
    )


def seconds(of: Scenario, dataset: Dataset) -> float:
    """Return the time to build the federation and to look up every client's rows."""
    start = time.perf_counter()
    federation = build_federation(of, dataset)
    for client in range(len(federation.population)):
        federation.partition.client_rows(client)
    return time.perf_counter() - start


def settings():
    for by, minority in GROUPS.items():
        for name, partition in DISJOINT.items():
            sizes = {} if name in NO_SIZE else {"examples_each": 40}
            if minority is LABEL_NINE and name in NEED_MORE_CLASSES:
                continue  # with a minority of one class, most of its clients would get nothing
            yield f"1,000 clients, {name}, {by}", scenario(1_000, partition, minority, **sizes)
        for name, partition in OVERLAPPING.items():
            overlapping = scenario(100_000, partition, minority, examples_each=20, overlap=True)
            yield f"100,000 overlapping clients, {name}, {by}", overlapping


def main() -> None:
    dataset = fashion_mnist_sized()
    for name, of in settings():
        report("partitions", name, {"to all clients' rows": (seconds(of, dataset), "s")})


if __name__ == "__main__":
    main()
