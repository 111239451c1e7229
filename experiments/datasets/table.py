"""Whom the same strategies silence and whom they lift, on four real datasets.

python experiments/datasets/table.py [--out RUNS] [SCENARIO ...]

Runs the scenarios (by default the four of the table; finished runs are not run again), then writes
results.csv, one row per run, and prints the table of all runs in it.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd

from clients.shard import Role
from fl_testbed.report.results import RunResult, finished_runs
from fl_testbed.report.statistics import estimate
from fl_testbed.scenario import load_scenarios

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs"
SCENARIOS = (
    "inverted_fashion_mnist",
    "adult_by_sex_and_income",
    "writers_by_population",
    "fairface_by_race",
)
RESULTS = HERE / "results.csv"
ROLES = (Role.HONEST_MAJORITY, Role.HONEST_MINORITY, Role.POISONED)


def run(path: Path, out: Path) -> pd.DataFrame:
    """Run a scenario with the real command, and return a row for each of its runs."""
    command = ["fl-testbed", "run", str(path), "--out", str(out)]
    print(shlex.join(command), flush=True)
    subprocess.run(command, check=True, stdout=sys.stderr)
    scenarios = load_scenarios(path)
    return pd.DataFrame([row_of(run) for run in finished_runs(scenarios, out)])


def row_of(run: RunResult) -> dict[str, object]:
    """Return a run's row of results.csv."""
    final = ("accuracy", "worst_group_accuracy", "attack_success_rate")
    ratios = {role: f"{role.value}.weight_ratio" for role in ROLES}
    return {
        "scenario": run.name,
        "variant": run.variant,
        "seed": run.seed,
        "oracle": bool(run.figures["oracle"]),
        **{name: run.figures[f"final.{name}"] for name in final},
        **{
            f"weight_ratio.{role.value}": run.figures[f"suppression.{key}"]
            for role, key in ratios.items()
        },
    }


def table(results: pd.DataFrame) -> str:
    """Return the results as Markdown: mean and 95 % interval over seeds."""
    lines = [
        "| scenario | strategy | worst group % | ASR % | WR majority | WR minority | WR poisoned |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for (scenario, variant), runs in results.groupby(["scenario", "variant"], sort=False):
        shares = [
            cell(runs[f"{key}"], 100, 0) for key in ("worst_group_accuracy", "attack_success_rate")
        ]
        ratios = [cell(runs[f"weight_ratio.{role.value}"], 1, 2) for role in ROLES]
        lines.append(f"| {' | '.join([str(scenario), str(variant), *shares, *ratios])} |")
    return "\n".join(lines)


def cell(values: pd.Series, scale: float, digits: int) -> str:
    """Return mean ± half the interval, or a dash where there is no value."""
    mean, half, _ = estimate(values.to_numpy(dtype=float))
    if pd.isna(mean):
        return "–"
    text = f"{mean * scale:.{digits}f}"
    return text if pd.isna(half) else f"{text} ± {half * scale:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "scenarios", nargs="*", default=SCENARIOS, help="names in configs/, or files"
    )
    parser.add_argument("--out", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    for name in arguments.scenarios:
        path = Path(name) if name.endswith(".yaml") else CONFIGS / f"{name}.yaml"
        new = run(path, arguments.out)
        old = pd.read_csv(RESULTS) if RESULTS.exists() else new.iloc[:0]
        kept = old[old["scenario"] != new["scenario"].iloc[0]]
        pd.concat([kept, new]).to_csv(RESULTS, index=False, float_format="%.6g")
    print(table(pd.read_csv(RESULTS)))


if __name__ == "__main__":
    main()
