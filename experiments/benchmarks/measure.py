"""What benchmarks share: writing and reading results.csv, and the memory of a process tree."""

import csv
import os
import platform
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

RESULTS = Path(__file__).parent / "results.csv"
COLUMNS = ("date", "benchmark", "setting", "figure", "value", "unit", "hardware", "torch")


def report(
    benchmark: str,
    setting: str,
    figures: Mapping[str, tuple[float, str]],
    path: Path = RESULTS,
    **versions: str,
) -> None:
    """Print what was measured in a setting of a benchmark, and append it to a file.

    Args:
        benchmark: The benchmark's name.
        setting: What it was measured on.
        figures: Values and their units, by name.
        path: The CSV file.
        **versions: Versions besides torch's, in columns of their own; a file has the same ones in
            all rows.
    """
    fresh = not path.exists()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    hardware = f"{os.cpu_count()} cores, {platform.machine()}, {memory_gib():.0f} GiB"
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow([*COLUMNS, *versions])
        for figure, (value, unit) in figures.items():
            shown = f"{value:.4g}"
            print(f"{setting:<34} {figure:<46} {shown:>10} {unit}")
            row = (now, benchmark, setting, figure, shown, unit, hardware, torch.__version__)
            writer.writerow([*row, *versions.values()])


def measured(benchmark: str, path: Path = RESULTS) -> dict[tuple[str, str], list[float]]:
    """Return all of a benchmark's values in a file, in its order, by setting and figure."""
    found: dict[tuple[str, str], list[float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["benchmark"] == benchmark:
                found.setdefault((row["setting"], row["figure"]), []).append(float(row["value"]))
    return found


def latest(benchmark: str, path: Path = RESULTS) -> dict[tuple[str, str], float]:
    """Return a benchmark's latest values by setting and figure."""
    return {key: values[-1] for key, values in measured(benchmark, path).items()}


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
