"""Which clients the same strategies silence and lift, on four real datasets.

python -m experiments.datasets.table [--out RUNS] [SCENARIO ...]

Runs the scenarios (by default those of the first table; finished runs are not run again), then
writes results.csv, one row per run, and the tables of the README.
"""

from pathlib import Path

import pandas as pd

from clients.shard import Role
from experiments import pages
from fl_testbed import api
from fl_testbed.report.results import RunResult

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs"
SCENARIOS = (
    "inverted_fashion_mnist",
    "adult_by_sex_and_income",
    "writers_by_population",
    "fairface_by_race",
    "fairface_by_gender_and_age",
)
PAGE, RESULTS = HERE / "README.md", HERE / "results.csv"
TABLES = {
    "federations": tuple(name.replace("_", "-") for name in SCENARIOS),
    "cnn": ("fairface-cnn", "writers-cnn"),
    "server_data": ("server-data",),
}
NAMED = {
    "mean_no_attack": "mean, no attack",
    "mean": "mean",
    "multi_krum": "Multi-Krum",
    "trimmed_mean": "trimmed mean",
    "norm_clipping": "norm clipping",
    "agnostic": "agnostic",
    "jtt": "JTT",
    "agnostic_no_attack": "agnostic, no attack",
    "jtt_no_attack": "JTT, no attack",
    "fltrust": "FLTrust",
    "loss_rejection": "LFR",
}


def row_of(run: RunResult) -> dict[str, object]:
    """Return a run's row of results.csv."""
    final = ("accuracy", "worst_group_accuracy", "attack_success_rate")
    return {
        "scenario": run.name,
        "variant": run.variant,
        "seed": run.seed,
        "oracle": bool(run.figures["oracle"]),
        **{name: run.figures[f"final.{name}"] for name in final},
        **{f"weight_ratio.{r}": run.figures[f"suppression.{r}.weight_ratio"] for r in Role},
    }


def tables() -> dict[str, pages.Rows]:
    """Return the tables of the README, from the result file."""
    results = pd.read_csv(RESULTS)
    parts = {name: results[results["scenario"].isin(names)] for name, names in TABLES.items()}
    made = {name: by_strategy(part) for name, part in parts.items()}
    for row in made["server_data"]:
        del row["scenario"]  # the same in all rows
    return {name: pages.records(rows) for name, rows in made.items()}


def by_strategy(results: pd.DataFrame) -> list[dict[str, str]]:
    """Return a row per scenario and strategy: mean and 95 % interval over seeds."""
    rows = []
    for (scenario, variant), runs in results.groupby(["scenario", "variant"], sort=False):
        strategy, *swept = str(variant).split(",")
        row = {
            "scenario": str(scenario),
            "strategy": ", ".join([NAMED[strategy], *(p.partition("=")[2] for p in swept)]),
            "worst group %": pages.mean_pm(100 * runs["worst_group_accuracy"]),
            "ASR %": pages.mean_pm(100 * runs["attack_success_rate"]),
        }
        for role in Role:
            name = f"WR {role.removeprefix('honest_')}"
            row[name] = pages.mean_pm(runs[f"weight_ratio.{role}"], 2)
        rows.append(row)
    return rows


def main() -> None:
    parser = pages.parser(__doc__)
    parser.add_argument(
        "scenarios", nargs="*", default=SCENARIOS, help="names in configs/, or files"
    )
    arguments = parser.parse_args()
    for name in arguments.scenarios:
        path = Path(name) if name.endswith(".yaml") else CONFIGS / f"{name}.yaml"
        new = pd.DataFrame(map(row_of, api.run(path, out=arguments.out).runs))
        old = pd.read_csv(RESULTS) if RESULTS.exists() else new.iloc[:0]
        kept = old[old["scenario"] != new["scenario"].iloc[0]]
        pages.keep(RESULTS, pd.concat([kept, new]), ".6g")
    pages.write(PAGE, tables())


if __name__ == "__main__":
    main()
