"""Aggregation rules and pre-aggregations against ByzFL's: agreement, seconds, peak memory.

    python experiments/benchmarks/rules_against_byzfl.py --byzfl-python BYZFL_PYTHON

where BYZFL_PYTHON is the Python of an environment with ``byzfl``. Our side also computes weights
and suspicion, which ByzFL does not have. ``--part`` and ``--rules`` run some of it; memory, which
is measured for all of our rules, needs no ByzFL.

Agreement: the same small random matrices go through both. Where the two are known to differ, the
reason is printed; an unexplained difference ends the benchmark with status 1. Seconds: each side is
one process; they take turns of five calls after one to warm up, as many turns as fit into twenty
seconds per rule; the median of the turns' medians counts.
Memory: a fresh process per rule, the peak of its resident set above its size with the matrix.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import report

from strategies import aggregation as rules
from strategies import pre_aggregation as pre
from strategies.aggregation import Aggregate, Aggregator
from strategies.memory import Memory

CSV = Path(__file__).parent / "rules.csv"
BACKENDS = ("numpy", "torch")
N, F, D = 100, 20, 1_000_000
REPEATS = 5
BUDGET_S = 30.0  # a call that takes longer is not repeated
TURNS_S = 20.0
MOST_TURNS = 25


def random_updates(n: int, d: int, f: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return n - f updates drawn from N(0.1, 1), and f others three times as large elsewhere."""
    generator = torch.Generator().manual_seed(0)
    updates = torch.randn(n, d, generator=generator, dtype=dtype).add_(0.1)
    updates[n - f :].mul_(3).sub_(2)
    return updates


def around_a_common_part(n: int, d: int, f: int, dtype: torch.dtype = torch.float32):
    """Return updates that deviate by 1e-3 from 1, as those of clients that nearly agree."""
    return 1 + 1e-3 * random_updates(n, d, f, dtype)


# Agreement

DTYPES = (torch.float32, torch.float64)
MATRICES = {
    "few": (11, 2, random_updates),
    "many": (30, 6, random_updates),
    "common part": (30, 6, around_a_common_part),
}
"""Number of clients, number of attackers, and the function that makes their updates."""


@dataclass(frozen=True)
class Comparison:
    """One of our rules beside one of ByzFL's, on the same matrix."""

    theirs: str
    ours: Callable[[torch.Tensor, int, str], torch.Tensor]
    """Returns our result for a matrix, ByzFL's f and ByzFL's backend."""
    differs: str = ""
    """Why the two are known to differ; empty: they must agree."""
    where: tuple[str, str] | None = None
    """The only matrix and backend for which the reason holds; all by default."""
    many_clients: bool = True


DRAWN = "draws the vector that it begins at, and goes one step of the power iteration from there"
CDIST = "more than 25 rows: squared norms less products, in float32, drown distances of 1e-3 by 1"
BLURRED = ("common part", "torch")


def updates_of(rule: Callable[..., Any], **given: Any) -> Callable[..., torch.Tensor]:
    """Bind a rule's parameters; ``f`` is added to n_malicious, where that is given."""

    def ours(updates: torch.Tensor, f: int, backend: str) -> torch.Tensor:
        more = (
            {**given, "n_malicious": f + given["n_malicious"]} if "n_malicious" in given else given
        )
        return rule(updates, **more)[0]

    return ours


def buckets(updates: torch.Tensor, f: int, backend: str) -> torch.Tensor:
    """Bucket with the permutation that ByzFL draws from the backend's global generator."""

    class TheirGenerator:
        def permutation(self, n: int) -> np.ndarray:
            if backend == "numpy":
                return np.random.RandomState(0).permutation(n)
            return torch.randperm(n, generator=torch.Generator().manual_seed(0)).numpy()

    return pre.bucketing(updates, TheirGenerator(), size=2).updates  # pyright: ignore


def multi_krum_of(updates: torch.Tensor, f: int, backend: str) -> torch.Tensor:
    """Average the n - f clients of best score, with scores computed for f - 1 attackers."""
    return rules.multi_krum(updates, f - 1, n_selected=len(updates) - f).update


COMPARISONS = {
    "mean": Comparison("mean", updates_of(rules.mean)),
    "coordinate_median": Comparison("coordinate_median", updates_of(rules.coordinate_median)),
    "trimmed_mean": Comparison("trimmed_mean", updates_of(rules.trimmed_mean, n_malicious=0)),
    "mean_around_median": Comparison(
        "mean_around_median", updates_of(rules.mean_around_median, n_malicious=0)
    ),
    "geometric_median": Comparison(
        "geometric_median",
        updates_of(rules.geometric_median),
        "three steps from 0, where ours goes on until it stands; 0.1 in parameter units",
    ),
    "geometric_median, 1000 steps": Comparison(
        "geometric_median, converged",
        updates_of(rules.geometric_median, n_iterations=1000, tolerance=0.0),
    ),
    "krum": Comparison(
        "krum", updates_of(rules.krum, n_malicious=0), "n - f - 1 neighbours, the paper n - f - 2"
    ),
    "krum, ours told f - 1": Comparison(
        "krum", updates_of(rules.krum, n_malicious=-1), CDIST, BLURRED
    ),
    "multi_krum": Comparison(
        "multi_krum",
        updates_of(rules.multi_krum, n_malicious=0),
        "n - f - 1 neighbours, the paper n - f - 2",
    ),
    "multi_krum, ours scored for f - 1": Comparison("multi_krum", multi_krum_of, CDIST, BLURRED),
    "centred_clipping": Comparison(
        "centred_clipping", updates_of(rules.centred_clipping, memory={}, radius=100.0)
    ),
    "centred_clipping, three steps": Comparison(
        "centred_clipping, three steps",
        updates_of(rules.centred_clipping, memory={}, radius=1.5, n_iterations=3),
    ),
    "minimum_diameter": Comparison(
        "minimum_diameter",
        updates_of(rules.minimum_diameter, n_malicious=0),
        many_clients=False,
    ),
    "caf": Comparison("caf", updates_of(rules.caf, n_malicious=0), DRAWN),
    "nearest_neighbour_mixing": Comparison(
        "nearest_neighbour_mixing",
        updates_of(pre.nearest_neighbour_mixing, n_malicious=0),
        CDIST,
        BLURRED,
    ),
    "bucketing": Comparison("bucketing", buckets),
    "clipping": Comparison("clipping", updates_of(pre.clipping, max_norm=2.0)),
    "adaptive_clipping": Comparison(
        "adaptive_clipping", updates_of(pre.adaptive_clipping, n_malicious=0)
    ),
}


def agreement(theirs: "Side", names: list[str], folder: Path) -> bool:
    """Report the largest differences; return whether all of them are explained."""
    explained = True
    matrix, result = folder / "small.npy", folder / "result.npy"
    for name in names:
        comparison = COMPARISONS[name]
        figures = {}
        for backend, dtype, (kind, (n, f, make)) in product(BACKENDS, DTYPES, MATRICES.items()):
            if n > 11 and not comparison.many_clients:
                continue
            updates = make(n, 1_000, f, dtype)
            np.save(matrix, updates.numpy())
            asked = {"rule": comparison.theirs, "f": f, "backend": backend}
            theirs.ask(ask="result", **asked, matrix=str(matrix), to=str(result))
            gap = np.abs(comparison.ours(updates, f, backend).numpy() - np.load(result)).max()
            share = float(gap / updates.abs().median())
            # ByzFL's torch rules convert everything to float32.
            exact = dtype == torch.float64 and backend == "numpy"
            agrees = share <= (1e-10 if exact else 1e-5)
            known = comparison.differs and comparison.where in (None, (kind, backend))
            explained &= bool(agrees or known)
            said = "" if agrees else comparison.differs if known else "NOT EXPLAINED"
            figures[f"difference, {backend}, {str(dtype)[6:]}, {kind}"] = (share, said)
        report("rules_against_byzfl", name, figures, CSV, **theirs.versions)
    return explained


# Seconds


@dataclass(frozen=True)
class Contest:
    """A rule that both have, and how many times faster ours should be."""

    call: Callable[[torch.Tensor], object]
    target: float = 1.0
    f: int = F
    d: int = D


CONTESTS = {
    "mean": Contest(rules.mean),
    "krum": Contest(partial(rules.krum, n_malicious=F), 2.0),
    "multi_krum": Contest(partial(rules.multi_krum, n_malicious=F), 2.0),
    "coordinate_median": Contest(rules.coordinate_median, 2.0),
    "trimmed_mean": Contest(partial(rules.trimmed_mean, n_malicious=F), 1 / 1.3),
    "mean_around_median": Contest(partial(rules.mean_around_median, n_malicious=F)),
    "geometric_median": Contest(rules.geometric_median, 2.0),
    "centred_clipping": Contest(partial(rules.centred_clipping, memory={}, radius=100.0)),
    "caf": Contest(partial(rules.caf, n_malicious=F)),
    # ByzFL goes through all subsets: 4950 for f = 2 take minutes.
    "minimum_diameter": Contest(partial(rules.minimum_diameter, n_malicious=1), f=1, d=10_000),
    # ByzFL gathers n (n - f) rows: 30 GiB for 1M parameters.
    "nearest_neighbour_mixing": Contest(
        partial(pre.nearest_neighbour_mixing, n_malicious=F), 2.0, d=100_000
    ),
    "bucketing": Contest(partial(pre.bucketing, rng=np.random.default_rng(0), size=2)),
    "clipping": Contest(partial(pre.clipping, max_norm=2.0)),
    "adaptive_clipping": Contest(partial(pre.adaptive_clipping, n_malicious=F)),
}
IN_PLACE = ", in place"
# ByzFL's clipping overwrites its input; ours does if allowed to, as in a server's step. In the
# contests above both preserve it (ByzFL's copies it first); here both overwrite a copy made before.
CONTESTS |= {name + IN_PLACE: CONTESTS[name] for name in ("clipping", "adaptive_clipping")}


def seconds_of(rule: str, matrix: str) -> dict[str, object]:
    """Time one of our rules, after one call to warm up."""
    updates = torch.from_numpy(np.load(matrix))
    seconds = []
    for _ in range(REPEATS + 1):
        call = CONTESTS[rule].call
        if rule.endswith(IN_PLACE):
            given = torch.from_numpy(updates.numpy().copy())
            call = partial(call, out=given)
        else:
            given = updates
        start = time.perf_counter()
        call(given)
        seconds.append(time.perf_counter() - start)
    return {"median_s": statistics.median(seconds[1:])}


def contest(ours: "Side", theirs: "Side", names: list[str], folder: Path, threads: int) -> None:
    for name in names:
        against = CONTESTS[name]
        matrix = folder / f"{against.d}-{against.f}.npy"
        if not matrix.exists():
            np.save(matrix, random_updates(N, against.d, against.f).numpy())
        setting = f"{name}, {N} x {against.d}, f={against.f}, {threads} threads"
        request = {"rule": name, "matrix": str(matrix)}
        asked = request | {"ask": "seconds", "f": against.f, "repeats": REPEATS}
        own, turns = [], {backend: [] for backend in BACKENDS}
        until = time.perf_counter() + TURNS_S
        while not own or (len(own) < MOST_TURNS and time.perf_counter() < until):
            own.append(ours.ask(**request)["median_s"])
            for backend, answers in turns.items():
                answers.append(theirs.ask(**asked, backend=backend, budget_s=BUDGET_S))
        ours_s = statistics.median(own)
        counted = f"s ({len(own)} turns)"
        figures = {"ours": (ours_s, counted)}
        fastest = float("inf")
        for backend, answers in turns.items():
            faults = [answer["fault"] for answer in answers if "fault" in answer]
            taken, unit = float("nan"), faults[0] if faults else counted
            if not faults:
                taken = statistics.median(answer["median_s"] for answer in answers)
                fastest = min(fastest, taken)
            figures[f"ByzFL, {backend}"] = (taken, unit)
        ratio = f"ByzFL's faster / ours (target {against.target:.2g})"
        figures[ratio] = (fastest / ours_s, "x")
        report("rules_against_byzfl", setting, figures, CSV, **theirs.versions)


class Side:
    """A process that answers one JSON request per line; its first line gives its versions."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions: dict[str, str] = self._answer()

    def ask(self, **request: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process of the benchmark ended: its own message stands above")
        return json.loads(line)


# Memory

Round = Callable[[torch.Tensor, Memory], object]
"""A rule's round: takes updates and what the rule carried over, returns its result."""


def stateless(rule: Callable[..., object], **given: Any) -> Round:
    return lambda updates, memory: rule(updates, **given)


def guarded(rule: Aggregator, **given: Any) -> Round:
    def distance(update: torch.Tensor) -> tuple[float, float]:
        length = torch.linalg.vector_norm(update).item()
        return length, length

    return stateless(rule, evaluate=distance, n_malicious=F, **given)


def every_rule() -> dict[str, Round]:
    rng, clients = np.random.default_rng(0), torch.arange(N)
    assuming_f = (
        "krum",
        "multi_krum",
        "iterative_multi_krum",
        "bulyan",
        "trimmed_mean",
        "mean_around_median",
        "minimum_diameter",
        "caf",
        "k_norm",
    )
    simple = ("mean", "norm_clipping", "coordinate_median", "geometric_median")
    impact = ("error_rate_rejection", "loss_rejection", "union_rejection")
    by_coordinate = partial(rules.trimmed_mean, n_malicious=F)
    return {
        **{name: stateless(getattr(rules, name), n_malicious=F) for name in assuming_f},
        **{name: stateless(getattr(rules, name)) for name in simple},
        **{name: guarded(getattr(rules, name)) for name in impact},
        "loss_rejection of trimmed_mean": guarded(rules.loss_rejection, aggregate=by_coordinate),
        "norm_clipping, fixed": stateless(rules.norm_clipping, max_norm=5.0),
        "weak_dp": stateless(rules.weak_dp, rng=rng, max_norm=5.0, noise_std=0.01),
        "k_loss": stateless(rules.k_loss, losses=torch.arange(N).double(), n_malicious=F),
        "alignins": stateless(rules.alignins, received=torch.ones(D)),
        "lasa": stateless(rules.lasa, layers={"weight": slice(0, D)}),
        "feddlad": stateless(rules.feddlad, received=torch.ones(D)),
        "flame": stateless(rules.flame, rng=rng),
        "deepsight": stateless(
            rules.deepsight,
            respond=lambda update, n_inputs: torch.zeros(n_inputs, 10),
            layers={"weight": slice(D - 850, D - 10), "bias": slice(D - 10, D)},
        ),
        "flare": stateless(rules.flare, represent=lambda update: update[:200].view(20, 10)),
        "freqfed": stateless(rules.freqfed),
        "dnc": stateless(rules.dnc, rng=rng, n_malicious=F),
        "sign_guard": stateless(rules.sign_guard, rng=rng),
        "rflbat": stateless(rules.rflbat, rng=rng),
        "robust_learning_rate": stateless(rules.robust_learning_rate, threshold=8),
        "fltrust": stateless(rules.fltrust, reference=torch.ones(D)),
        "centred_clipping": lambda updates, memory: rules.centred_clipping(updates, memory, 10.0),
        "foolsgold": lambda updates, memory: rules.foolsgold(updates, clients, memory),
        "fldetector": lambda updates, memory: rules.fldetector(updates, clients, memory, rng),
        "bucketing": stateless(pre.bucketing, rng=rng),
        "clipping": stateless(pre.clipping, max_norm=5.0),
        "adaptive_clipping": stateless(pre.adaptive_clipping, n_malicious=F),
        "clipping, in place": lambda updates, memory: pre.clipping(updates, 5.0, out=updates),
        "adaptive_clipping, in place": lambda updates, memory: pre.adaptive_clipping(
            updates, F, out=updates
        ),
        "nearest_neighbour_mixing": stateless(pre.nearest_neighbour_mixing, n_malicious=F),
    }


LATER = ", fourth round"
CARRYING = ("centred_clipping", "foolsgold", "fldetector")  # rules with a memory between rounds


def peak_of(name: str) -> dict[str, float]:
    """Return the peak above matrix and memory, as a multiple of the matrix.

    What a rule carried over from the last round counts as an input, like the matrix.
    """
    play = every_rule()[name.removesuffix(LATER)]
    memory: Memory = {}
    updates = random_updates(N, D, F)
    small = not any(kind in name for kind in ("fltrust", "rejection", "deepsight"))
    play(updates[:, :1000] if small else updates, {})  # imports, thread pools
    for _ in range(3 if name.endswith(LATER) else 0):
        result = play(updates, memory)
        assert isinstance(result, Aggregate)
        memory = result.memory
        del result
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    play(updates, memory)
    peak = resident("VmHWM")
    return {"multiple": (peak - before) / (updates.element_size() * updates.numel())}


def resident(field: str) -> int:
    """Return a figure of this process's resident set in bytes: VmRSS now, VmHWM its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}: memory is measured on Linux alone")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--byzfl-python", default="", help="the Python of ByzFL's environment")
    parser.add_argument("--part", choices=("agreement", "seconds", "memory"), action="append")
    parser.add_argument("--rules", nargs="+", default=[], help="these alone")
    parser.add_argument("--threads", type=int, default=2, help="torch threads on both sides")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--peak-of", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.serve:
        print("{}", flush=True)
        for line in sys.stdin:
            print(json.dumps(seconds_of(**json.loads(line))), flush=True)
        return
    if arguments.peak_of:
        print(json.dumps(peak_of(arguments.peak_of)), flush=True)
        return
    parts = arguments.part or ["agreement", "seconds", "memory"]
    if not arguments.byzfl_python and parts != ["memory"]:
        parser.error("agreement and seconds need --byzfl-python, or measure --part memory alone")

    def asked_for(names: list[str]) -> list[str]:
        wanted = arguments.rules
        return [name for name in names if not wanted or name.partition(",")[0] in wanted]

    threads = ["--threads", str(arguments.threads)]
    explained = True
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if parts != ["memory"]:
            byzfl_side = str(Path(__file__).parent / "byzfl_side.py")
            command = [arguments.byzfl_python, byzfl_side, str(arguments.threads)]
            theirs = stack.enter_context(Side(command))
            if "agreement" in parts:
                explained = agreement(theirs, asked_for(list(COMPARISONS)), folder)
            if "seconds" in parts:
                ours = stack.enter_context(Side([sys.executable, __file__, "--serve", *threads]))
                contest(ours, theirs, asked_for(list(CONTESTS)), folder, arguments.threads)
    if "memory" in parts:
        later = [name + LATER for name in CARRYING]
        for name in asked_for([*every_rule(), *later]):
            with Side([sys.executable, __file__, "--peak-of", name, *threads]) as fresh:
                multiple = float(fresh.versions["multiple"])
            setting = f"{name}, {N} x {D}, f={F}"
            figures = {"peak memory above the matrix / the matrix": (multiple, "x")}
            no_versions = {"byzfl": "", "byzfl_numpy": "", "byzfl_torch": ""}
            report("rules_against_byzfl", setting, figures, CSV, **no_versions)
    if not explained:
        raise SystemExit("differences that nothing explains: look for NOT EXPLAINED above")


if __name__ == "__main__":
    main()
