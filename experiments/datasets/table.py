"""Which clients the same strategies silence and lift, on four real datasets.

python -m experiments.datasets.table [--out RUNS] [SCENARIO ...]

Runs the scenarios (by default those of the first table; finished runs are not run again), then
writes results.csv, one row per run, and the tables of the README.
"""

from collections.abc import Mapping
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
    "cnn": ("fairface-cnn", "writers-cnn", "writers-cnn-late"),
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
    "jtt_ideal": "JTT told the minority †",
    "agnostic_multi_krum": "agnostic and Multi-Krum",
}
FACES = {"MLP": "fairface-by-gender-and-age", "CNN": "fairface-by-gender-and-age-cnn"}
FINAL = {
    "all faces": "accuracy",
    "worst group": "worst_group_accuracy",
    "minority": "minority_accuracy",
    "ASR": "attack_success_rate",
}
UNATTACKED = {name: f"{name}_no_attack" for name in ("mean", "agnostic", "jtt")}


def row_of(run: RunResult) -> dict[str, object]:
    """Return a run's row of results.csv."""
    return {
        "scenario": run.name,
        "variant": run.variant,
        "seed": run.seed,
        "oracle": bool(run.figures["oracle"]),
        **{name: run.figures[f"final.{name}"] for name in FINAL.values()},
        **{f"weight_ratio.{r}": run.figures[f"suppression.{r}.weight_ratio"] for r in Role},
    }


def tables() -> dict[str, pages.Rows]:
    """Return the tables of the README, from the result file."""
    results = pd.read_csv(RESULTS)
    parts = {name: results[results["scenario"].isin(names)] for name, names in TABLES.items()}
    made = {name: by_strategy(part) for name, part in parts.items()}
    for row in made["server_data"]:
        del row["scenario"]  # the same in all rows
    faces = {model: results[results["scenario"] == name] for model, name in FACES.items()}
    made["faces_cnn"] = in_full(faces["CNN"])
    made["faces_differences"] = differences(faces)
    made["faces_attack"] = added_by_the_attack(faces)
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


def in_full(results: pd.DataFrame) -> list[dict[str, str]]:
    """Return a row per strategy of a scenario, with the accuracy of all and of the minority."""
    rows = []
    for variant, runs in results.groupby("variant", sort=False):
        row = {"strategy": NAMED[str(variant)]}
        row |= {f"{name} %": pages.mean_pm(100 * runs[final]) for name, final in FINAL.items()}
        for role in (Role.HONEST_MINORITY, Role.POISONED):
            name = f"WR {role.removeprefix('honest_')}"
            row[name] = pages.mean_pm(runs[f"weight_ratio.{role}"], 2)
        rows.append(row)
    return rows


def differences(faces: Mapping[str, pd.DataFrame]) -> list[dict[str, str]]:
    """Return how far each attacked strategy is from the mean, in points, paired by seed."""
    rows = []
    for name in faces["CNN"]["variant"].unique():
        if name in ("mean", *UNATTACKED.values()):
            continue
        row = {"strategy": NAMED[name]}
        for model, runs in faces.items():
            for figure in ("minority", "worst group", "ASR"):
                change = _of(runs, name, figure) - _of(runs, "mean", figure)
                row[f"{model}: {figure}"] = pages.difference(change)
        rows.append(row)
    return rows


def added_by_the_attack(faces: Mapping[str, pd.DataFrame]) -> list[dict[str, str]]:
    """Return by how many points the attack raises ASR, and how much more than under the mean."""
    rows = []
    for name in UNATTACKED:
        row = {"strategy": NAMED[name]}
        for model, runs in faces.items():
            own, plain = (
                _of(runs, n, "ASR") - _of(runs, UNATTACKED[n], "ASR") for n in (name, "mean")
            )
            row[f"{model}: added"] = pages.difference(own)
            row[f"{model}: more than under the mean"] = (
                "–" if name == "mean" else pages.difference(own - plain)
            )
        rows.append(row)
    return rows


def _of(runs: pd.DataFrame, variant: str, figure: str) -> pd.Series:
    """Return a variant's figure in percent, by seed."""
    return 100 * pages.where(runs, variant=variant).set_index("seed")[FINAL[figure]]


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
