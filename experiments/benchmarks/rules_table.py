"""Writes the tables of rules.md from rules.csv and results.csv.

python -m experiments.benchmarks.rules_table
"""

from pathlib import Path

import pandas as pd

from experiments import pages

PAGE = Path(__file__).parent / "rules.md"
SETTING = ", 100 x 1000000, f=20"  # of all but what a table's row says
SMALL = 0.2  # of the matrix: rules that need less share a row


def tables() -> dict[str, str]:
    """Return the three tables of the page."""
    rules = _latest("rules.csv", "rules_against_byzfl")
    partitions = _latest("results.csv", "partitions")
    return {
        "seconds": pages.markdown(_seconds(rules)),
        "memory": pages.markdown(_memory(rules)),
        "partitions": pages.markdown(
            [["setting", "seconds"], *([s, f"{v:.2g}"] for (s, _), v in partitions.items())]
        ),
    }


def _latest(file: str, benchmark: str) -> pd.Series:
    """Return a benchmark's latest values by setting and figure, in the order of the file."""
    rows = pd.read_csv(PAGE.parent / file).query("benchmark == @benchmark")
    return rows.groupby(["setting", "figure"], sort=False)["value"].last()


def _seconds(rules: pd.Series) -> list[list[str]]:
    lines = [["rule", "ours", "ByzFL numpy", "ByzFL torch", "faster / ours", "target"]]
    for (setting, figure), ratio in rules.items():
        if not figure.startswith("ByzFL's faster"):
            continue
        seconds = [rules[setting, of] for of in ("ours", "ByzFL, numpy", "ByzFL, torch")]
        target = figure.partition("target ")[2].rstrip(")")
        times = [f"{1000 * value:,.0f} ms" for value in seconds]
        lines.append([_name(setting), *times, f"{ratio:.3g}", target])
    return lines


def _memory(rules: pd.Series) -> list[list[str]]:
    peaks = rules[:, "peak memory above the matrix / the matrix"].sort_values(ascending=False)
    large = peaks[peaks > SMALL]
    lines = [["rule", "multiple"], *([_name(s), f"{v:.2f}"] for s, v in large.items())]
    small = peaks[peaks <= SMALL]
    return [*lines, [f"all {len(small)} others", f"at most {small.max():.2f}"]]


def _name(setting: str) -> str:
    """Return the rule, and its setting where that is not the usual one."""
    setting = setting.removesuffix(", 2 threads")
    if setting.endswith(SETTING):
        return setting.removesuffix(SETTING)
    rule, size, f = setting.rsplit(", ", 2)
    return f"{rule} ({size}, {f})"


if __name__ == "__main__":
    pages.write(PAGE, tables())
