"""What a defence costs the minority: each rule against itself with the minority shielded.

    fl-testbed run experiments/shielding/fashion.yaml
    python experiments/shielding/table.py fashion

writes ``results/fashion.csv``, a row per run, and prints the tables of the README.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from fl_testbed.report.results import finished_runs
from fl_testbed.report.statistics import estimate
from fl_testbed.scenario import load_scenarios

HERE = Path(__file__).parent
WORST, ASR = "final.worst_group_accuracy", "final.attack_success_rate"
RATIOS = [
    f"suppression.{role}.weight_ratio"
    for role in ("honest_majority", "honest_minority", "poisoned")
]
SHIELDED = "_shielded"


def measured(name: str, out: Path) -> pd.DataFrame:
    """Return one row per finished run, in the scenario's order."""
    scenarios = load_scenarios(HERE / f"{name}.yaml", [])
    rows = []
    for run in finished_runs(scenarios, out):
        figures = {key: run.figures.get(key, np.nan) for key in (WORST, ASR, *RATIOS)}
        rows.append({"variant": run.variant, "seed": run.seed, **figures})
    return pd.DataFrame(rows)


def costs(table: pd.DataFrame) -> list[list[str]]:
    """Return a row per rule: itself, shielded, and the difference seed by seed."""
    heading = ["rule", "worst group %", "shielded † %", "cost, points", "ASR %", "shielded † ASR %"]
    lines = [[*heading, "weight majority / minority / poisoned"]]
    worst, success = (100 * table.pivot_table(index="seed", columns="variant", values=v)
                      for v in (WORST, ASR))  # fmt: skip
    ratios = table.groupby("variant")[RATIOS].mean()
    for variant in table["variant"].unique():
        if variant.endswith(SHIELDED):
            continue
        shielded = variant + SHIELDED
        cells = [_range(worst[variant]), "–", "–", _mean(success, variant), "–"]
        if shielded in worst:
            cost = estimate((worst[shielded] - worst[variant]).to_numpy())
            cells[1] = _range(worst[shielded])
            cells[2] = f"**{cost.mean:.1f}** ± {cost.half_width:.1f}"
            cells[4] = _mean(success, shielded)
        weights = " / ".join("–" if np.isnan(r) else f"{r:.2f}" for r in ratios.loc[variant])
        lines.append([variant, *cells, weights])
    return lines


def _range(values: pd.Series) -> str:
    return f"{values.mean():.0f} ({values.min():.0f}–{values.max():.0f})"


def _mean(table: pd.DataFrame, variant: str) -> str:
    return f"{table[variant].mean():.0f}" if variant in table else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(p.stem for p in HERE.glob("*.yaml")))
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where the runs are")
    arguments = parser.parse_args()
    table = measured(arguments.name, arguments.out)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    path = results / f"{arguments.name}.csv"
    table.to_csv(path, index=False, float_format="%.4g", lineterminator="\n")
    lines = costs(table)
    for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]]:
        print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main()
