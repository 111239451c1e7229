"""The tables of the benchmarks' page from the latest figures of results.csv and gpu.csv."""

import csv
from pathlib import Path

from experiments import pages
from experiments.benchmarks.measure import latest, measured

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
NOT_MEASURED = ("no accelerator", "failed")
FLOWER = ("200 clients x 100000", "1000 clients x 100000", "200 clients x 1000000")
SGD = {"pfl: 20 of 100 clients x 60": "20 of 100 clients", "CNN: 200 clients x 60": "200 clients"}
GROWTH = [(n, 100_000) for n in (100, 200, 500, 1_000, 2_000)] + [(100, 10_000), (100, 1_000_000)]


def tables() -> dict[str, pages.Rows]:
    """Return the tables of the page, from the result files."""
    return {of.__name__: of() for of in (flower, memory, sgd, growth, gpu)}


def flower() -> list[list[str]]:
    """Return milliseconds per message of both engines."""
    found = latest("engine_against_flower")
    lines = [["ms per client message", "this engine", "Flower's", "Flower's / this"]]
    for size in FLOWER:
        setting = f"{size} parameters"
        times = [found[setting, f"{of} engine, per message"] for of in ("this", "stock")]
        ratio = with_range("engine_against_flower", setting, "stock / this")
        lines.append([_thousands(setting), *(f"{value:.1f}" for value in times), ratio])
    return lines


def memory() -> list[list[str]]:
    """Return the peak memory above an idle engine, over the size of the matrix of updates."""
    setting = f"{FLOWER[-1]} parameters"
    lines = [["peak memory above idle / matrix of updates", "multiple"]]
    for rule, name in (("multi_krum", "Multi-Krum"), ("mean", "mean")):
        figure = f"{rule}: peak memory above idle / 4nd"
        multiple = with_range("engine_against_flower", setting, figure, 2)
        lines.append([f"{name}, {_thousands(setting)}", multiple])
    return lines


def sgd() -> list[list[str]]:
    """Return seconds per round beside bare PyTorch and pfl-research."""
    found = latest("engine_against_sgd")
    heads = ["with Multi-Krum", "with the mean", "two bare processes", "pfl-research"]
    ratios = {
        "with Multi-Krum / bare": "this with Multi-Krum / bare",
        "with the mean / bare": "this with the mean / bare",
        "with Multi-Krum / pfl-research": "this with Multi-Krum / pfl",
    }
    lines = [["seconds per round", *heads, *ratios]]
    sides = ["this engine with Multi-Krum", "this engine with the mean", *heads[2:]]
    for setting, name in SGD.items():
        seconds = [found.get((setting, f"{side}, per round")) for side in sides]
        cells = ["–" if value is None else f"{value:.2f}" for value in seconds]
        cells += [with_range("engine_against_sgd", setting, of, 2) for of in ratios.values()]
        lines.append([name, *cells])
    return lines


def growth() -> list[list[str]]:
    """Return milliseconds per client and round by size, with one worker and two."""
    found = latest("growth")
    lines = [["ms per client and round", "one worker", "two workers"]]
    for n, d in GROWTH:
        setting = f"{n} clients x {d} parameters"
        times = (found[setting, f"per client, {workers} workers"] for workers in (1, 2))
        lines.append([_thousands(setting), *(f"{value:.2f}" for value in times)])
    return lines


def gpu() -> list[list[str]]:
    """Return how many figures ``on_gpu.py`` asks for, and how many were measured."""
    with (HERE / "gpu.csv").open(newline="", encoding="utf-8") as file:
        values = {row["figure"]: row["value"] for row in csv.DictReader(file)}
    n_measured = sum(not value.startswith(NOT_MEASURED) for value in values.values())
    return [["figures asked for", "measured"], [str(len(values)), str(n_measured)]]


def with_range(benchmark: str, setting: str, figure: str, digits: int = 1) -> str:
    """Return a figure's latest value, and the lowest and highest ever measured; – if none was."""
    values = measured(benchmark).get((setting, figure))
    if not values:
        return "–"
    last, *ends = (f"{value:.{digits}f}" for value in (values[-1], min(values), max(values)))
    return f"{last} ({'–'.join(ends)})"


def _thousands(setting: str) -> str:
    words = (f"{int(word):,}" if word.isdigit() else word for word in setting.split())
    return " ".join(words).replace(" x ", " × ")
