"""What the benchmarks share: rows in results.csv, the latest of them, memory of a process tree."""

import csv
import os
import platform
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

RESULTS = Path(__file__).parent / "results.csv"
COLUMNS = ("date", "benchmark", "setting", "figure", "value", "unit", "hardware", "torch")


def report(
    benchmark: str,
    rows: Sequence[Mapping[str, object]],
    path: Path = RESULTS,
    **versions: str,
) -> None:
    """Print measured figures and append them to a file.

    Args:
        benchmark: Which benchmark.
        rows: Mappings with ``setting``, ``figure``, ``value`` and ``unit``.
        path: The CSV file.
        **versions: Versions besides torch's, in columns of their own: the same for all of a file.
    """
    fresh = not path.exists()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    hardware = f"{os.cpu_count()} cores, {platform.machine()}, {memory_gib():.0f} GiB"
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *versions], lineterminator="\n")
        if fresh:
            writer.writeheader()
        for row in rows:
            value = row["value"]
            shown = f"{value:.4g}" if isinstance(value, float) else value
            print(f"{row['setting']!s:<34} {row['figure']!s:<46} {shown:>10} {row['unit']}")
            writer.writerow(
                {
                    **row,
                    "value": shown,
                    "date": now,
                    "benchmark": benchmark,
                    "hardware": hardware,
                    "torch": torch.__version__,
                    **versions,
                }
            )


def latest(benchmark: str, path: Path = RESULTS) -> dict[tuple[str, str], float]:
    """Return a benchmark's latest values by setting and figure, from a file in its order."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["benchmark"] == benchmark]
    return {(row["setting"], row["figure"]): float(row["value"]) for row in rows}


def memory_gib() -> float:
    return psutil.virtual_memory().total / 2**30


class PeakMemory:
    """Samples the memory of this process and its children while a block runs.

    Shared pages are counted once (proportional set size), so that Ray's object store is not
    counted for every worker that maps it.
    """

    def __init__(self, interval_s: float = 0.05) -> None:
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = 0

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.peak = max(self.peak, tree_memory())
            time.sleep(self._interval_s)


def tree_memory() -> int:
    """Return the proportional set size of this process and all its descendants, in bytes."""
    me = psutil.Process()
    total = 0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it ended just now
            continue
    return total
