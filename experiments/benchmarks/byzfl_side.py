"""ByzFL's rules behind a pipe, in ByzFL's own environment: it answers one JSON request per line.

Started by rules_against_byzfl.py with the Python of an environment that has byzfl; it imports
nothing of this project.
"""

import importlib.metadata
import json
import statistics
import sys
import time
from unittest import mock

import numpy as np
import torch

try:
    import byzfl
except RuntimeError:  # torchvision and torch do not match; only ByzFL's datasets need it
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    for name in ("", ".datasets", ".transforms", ".models"):
        sys.modules[f"torchvision{name}"] = mock.MagicMock(name=f"torchvision{name}")
    import byzfl

RULES = {
    "mean": lambda f: byzfl.Average(),
    "coordinate_median": lambda f: byzfl.Median(),
    "trimmed_mean": lambda f: byzfl.TrMean(f=f),
    "mean_around_median": lambda f: byzfl.Meamed(f=f),
    "geometric_median": lambda f: byzfl.GeometricMedian(nu=0.1, T=3),
    "geometric_median, converged": lambda f: byzfl.GeometricMedian(nu=1e-9, T=1000),
    "krum": lambda f: byzfl.Krum(f=f),
    "multi_krum": lambda f: byzfl.MultiKrum(f=f),
    "centred_clipping": lambda f: byzfl.CenteredClipping(L=1, tau=100.0),
    "centred_clipping, three steps": lambda f: byzfl.CenteredClipping(L=3, tau=1.5),
    "minimum_diameter": lambda f: byzfl.MDA(f=f),
    "caf": lambda f: byzfl.CAF(f=f),
    "nearest_neighbour_mixing": lambda f: byzfl.NNM(f=f),
    "bucketing": lambda f: byzfl.Bucketing(s=2),
    "clipping": lambda f: byzfl.Clipping(c=2.0),
    "adaptive_clipping": lambda f: byzfl.ARC(f=f),
}
OVERWRITE_THEIR_INPUT = ("clipping", "adaptive_clipping")
IN_PLACE = ", in place"  # timed without the copy that preserves the input


def as_backend(rows: np.ndarray, backend: str):
    return rows if backend == "numpy" else torch.from_numpy(rows)


def copied(rows):
    return rows.copy() if isinstance(rows, np.ndarray) else rows.clone()


def result_of(rule: str, matrix: str, f: int, backend: str, to: str) -> dict[str, object]:
    """Apply a rule to a matrix in one file and write the result into another."""
    np.random.seed(0)  # noqa: NPY002 (ByzFL draws from the global generators)
    torch.manual_seed(0)
    np.save(to, np.asarray(RULES[rule](f)(as_backend(np.load(matrix), backend))))
    return {}


def seconds_of(
    rule: str, matrix: str, f: int, backend: str, repeats: int, budget_s: float
) -> dict[str, object]:
    """Time a rule, after one call to warm up unless that alone takes longer than the budget."""
    rows = as_backend(np.load(matrix), backend)
    named = rule.removesuffix(IN_PLACE)
    seconds: list[float] = []
    try:
        for i in range(repeats + 1):
            aggregate = RULES[named](f)  # a new one: centred clipping remembers its centre
            given = copied(rows) if rule.endswith(IN_PLACE) else rows
            start = time.perf_counter()
            aggregate(copied(rows) if rule in OVERWRITE_THEIR_INPUT else given)
            seconds.append(time.perf_counter() - start)
            if i == 0 and seconds[0] > budget_s:
                break
    except (MemoryError, RuntimeError) as fault:  # torch raises the latter when memory runs out
        return {"fault": f"{type(fault).__name__}: {fault}"}
    return {"median_s": statistics.median(seconds[1:] or seconds)}


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    columns = {"byzfl": "byzfl", "byzfl_numpy": "numpy", "byzfl_torch": "torch"}
    versions = {column: importlib.metadata.version(name) for column, name in columns.items()}
    print(json.dumps(versions), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        ask = {"result": result_of, "seconds": seconds_of}[request.pop("ask")]
        print(json.dumps(ask(**request)), flush=True)


if __name__ == "__main__":
    main()
