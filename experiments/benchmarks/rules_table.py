"""The tables of rules.md from rules.csv and results.csv."""

from pathlib import Path

from experiments import pages
from experiments.benchmarks.measure import latest

PAGE = Path(__file__).parent / "rules.md"
CSV = Path(__file__).parent / "rules.csv"
SETTING = ", 100 x 1000000, f=20"  # the usual one, which rows of a table leave out
SMALL = 0.2  # of the matrix: rules that need less memory share a row


def tables() -> dict[str, pages.Rows]:
    """Return the three tables of the page."""
    rules, partitions = latest("rules_against_byzfl", CSV), latest("partitions")
    return {
        "seconds": _seconds(rules),
        "memory": _memory(rules),
        "partitions": [
            ["setting", "seconds"],
            *([s, f"{v:.2g}"] for (s, _), v in partitions.items()),
        ],
    }


def _seconds(rules: dict[tuple[str, str], float]) -> list[list[str]]:
    lines = [["rule", "ours", "ByzFL numpy", "ByzFL torch", "faster / ours", "target"]]
    for (setting, figure), ratio in rules.items():
        if not figure.startswith("ByzFL's faster"):
            continue
        seconds = [rules[setting, of] for of in ("ours", "ByzFL, numpy", "ByzFL, torch")]
        target = figure.partition("target ")[2].rstrip(")")
        times = [f"{1000 * value:,.0f} ms" for value in seconds]
        lines.append([_name(setting), *times, f"{ratio:.3g}", target])
    return lines


def _memory(rules: dict[tuple[str, str], float]) -> list[list[str]]:
    peaks = [(v, _name(setting)) for (setting, of), v in rules.items() if of.startswith("peak")]
    large = [(v, name) for v, name in sorted(peaks, reverse=True) if v > SMALL]
    small = [v for v, _ in peaks if v <= SMALL]
    rest = [f"all {len(small)} others", f"at most {max(small):.2f}"]
    return [["rule", "multiple"], *([name, f"{v:.2f}"] for v, name in large), rest]


def _name(setting: str) -> str:
    """Return the rule's name, with its setting if that is not the usual one."""
    setting = setting.removesuffix(", 2 threads")
    if setting.endswith(SETTING):
        return setting.removesuffix(SETTING)
    rule, size, f = setting.rsplit(", ", 2)
    return f"{rule} ({size}, {f})"
