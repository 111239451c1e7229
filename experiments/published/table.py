"""Published figures beside our own.

    fl-testbed run experiments/published/flanders_fashion_mnist_no_attack.yaml
    fl-testbed run experiments/published/flanders_fashion_mnist.yaml
    fl-testbed run experiments/published/long_tail_fashion_mnist.yaml
    fl-testbed run experiments/published/long_tail_single_gradients.yaml
    python -m experiments.published.table [--out RUNS]

Adds the runs that it finds to a CSV file for each setting, and writes the tables of the README.
FLANDERS reports the best accuracy of one run, from the round on in which attackers begin; figures
that are more than 0.1 apart are bold.
"""

from pathlib import Path

import pandas as pd

from experiments import pages
from fl_testbed.report.results import finished_runs
from fl_testbed.scenario import load_scenarios

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
FILES = ("flanders_fashion_mnist", "long_tail_fashion_mnist", "long_tail_single_gradients")
FIRST_ROUND = 3
FLANDERS = {
    "mean": {"none": 0.68, "gaussian": 0.25, "lie": 0.17, "fang": 0.57, "min_max": 0.11},
    "coordinate_median": {
        "none": 0.71,
        "gaussian": 0.66,
        "lie": 0.65,
        "fang": 0.67,
        "min_max": 0.60,
    },
    "trimmed_mean": {"none": 0.69, "gaussian": 0.69, "lie": 0.54, "fang": 0.62, "min_max": 0.58},
    "multi_krum": {"none": 0.66, "gaussian": 0.74, "lie": 0.65, "fang": 0.70, "min_max": 0.67},
    "bulyan": {"none": 0.62, "gaussian": 0.71, "lie": 0.72, "fang": 0.69, "min_max": 0.76},
}
"""Best accuracy by rule and attack, with 20 of 100 clients attacking: the tables in the stored
notebook of Flower's ``flanders`` baseline."""
LONG_TAIL = {
    "mean": {"iid": 98.84, "pathological": 98.84},
    "krum": {"iid": 98.10, "pathological": 82.97},
    "coordinate_median": {"iid": 97.82, "pathological": 80.36},
    "geometric_median": {"iid": 98.72, "pathological": 84.76},
    "centred_clipping": {"iid": 98.76, "pathological": 98.15},
}
"""Accuracy in percent on MNIST by rule and partition, no attacker, mean of three seeds: Karimireddy
et al., ICLR 2022."""

RULES = {
    "mean": "mean",
    "centred_clipping": "centred clipping",
    "geometric_median": "RFA",
    "krum": "Krum",
    "coordinate_median": "coordinate median",
    "trimmed_mean": "trimmed mean",
    "multi_krum": "Multi-Krum",
    "bulyan": "Bulyan",
}
ATTACKS = {
    "none": "no attack",
    "gaussian": "Gaussian",
    "lie": "LIE",
    "fang": "Fang",
    "late_fang": "Fang, of round 3",
    "min_max": "Min-Max",
}


def flanders(out: Path) -> pd.DataFrame:
    """Return one row per run: rule, attack, its best accuracies and the published one."""
    rows = []
    for name in ("flanders_fashion_mnist_no_attack", "flanders_fashion_mnist"):
        for scenario, run in finished_runs(load_scenarios(HERE / f"{name}.yaml"), out):
            groups = pd.read_csv(run.folder / "groups.csv")
            later = groups[groups["round"] >= FIRST_ROUND].groupby("group")["accuracy"]
            rule = scenario.strategy.aggregation.kind
            attack = scenario.variant.split(",")[0] if scenario.clients.poisoned else "none"
            rows.append(
                {
                    "rule": rule,
                    "attack": attack,
                    "seed": scenario.seed,
                    "best, tested as published": later.max()["faded"],
                    "best, tested as trained": later.max()["plain"],
                    "last, tested as trained": later.last()["plain"],
                    "published": FLANDERS[rule][attack.removeprefix("late_")],
                }
            )
    return pd.DataFrame(rows)


def long_tail(name: str, out: Path) -> pd.DataFrame:
    """Return one row per run of a scenario: rule, partition and the last accuracy."""
    rows = []
    for scenario, run in finished_runs(load_scenarios(HERE / f"{name}.yaml"), out):
        rule, partition = scenario.strategy.aggregation.kind, scenario.partition.kind
        rounds = pd.read_csv(run.folder / "rounds.csv").dropna(subset=["accuracy"])
        rows.append(
            {
                "rule": rule,
                "partition": partition,
                "seed": scenario.seed,
                "accuracy %": 100 * rounds["accuracy"].iloc[-1],
                "published, MNIST %": LONG_TAIL[rule][partition],
            }
        )
    return pd.DataFrame(rows)


def tables() -> dict[str, pages.Rows]:
    """Return the tables of the README, from the result files."""
    flanders, long_tail, single = (pd.read_csv(HERE / f"{name}.csv") for name in FILES)
    return {
        "flanders": beside_flanders(flanders),
        "long_tail": beside_long_tail(long_tail),
        "single_gradients": by_class(single, long_tail),
    }


def beside_flanders(runs: pd.DataFrame) -> list[list[str]]:
    """Return our best accuracy / theirs, by rule and attack."""
    rows = [["ours / theirs", *ATTACKS.values()]]
    figures = {(run["rule"], run["attack"]): run for run in runs.to_dict("records")}
    for rule in (rule for rule in RULES if rule in set(runs["rule"])):
        row = [RULES[rule]]
        for attack in ATTACKS:
            run = figures.get((rule, attack))
            if run is None:
                row.append("–")
                continue
            ours, theirs = run["best, tested as published"], run["published"]
            row.append(pages.bold(f"{ours:.2f} / {theirs:.2f}", abs(ours - theirs) > 0.1))
        rows.append(row)
    return rows


def beside_long_tail(runs: pd.DataFrame) -> list[list[str]]:
    """Return our last accuracy and theirs, by rule and partition, and what rules lose against the
    mean where data are dealt by class."""
    rows = [["rule", "at random: ours", "theirs", "by class: ours", "theirs"]]
    rows[0] += ["gap to the mean, by class: ours", "theirs"]
    ours, theirs = (
        runs.pivot_table(key, "seed", ["rule", "partition"])
        for key in ("accuracy %", "published, MNIST %")
    )
    for rule in (rule for rule in RULES if rule in set(runs["rule"])):
        row = [RULES[rule]]
        for dealt in ("iid", "pathological"):
            row += [pages.mean_range(ours[rule, dealt], 1), pages.mean(theirs[rule, dealt], 1)]
        by_class = (of["mean", dealt] - of[rule, dealt] for of in (ours, theirs))
        rows.append([*row, *(pages.mean(gap, 1) for gap in by_class)])
    return rows


def by_class(single: pd.DataFrame, epochs: pd.DataFrame) -> list[list[str]]:
    """Return what rules lose against the mean where data are dealt by class, with single gradients
    and with epochs."""
    rows = [["rule", "single gradients", "gap to the mean: single gradients", "epochs", "theirs"]]
    ours, before, theirs = (
        pages.where(runs, partition="pathological").pivot_table(key, "seed", "rule")
        for runs, key in (
            (single, "accuracy %"),
            (epochs, "accuracy %"),
            (single, "published, MNIST %"),
        )
    )
    for rule in (rule for rule in RULES if rule in ours):
        gaps = (of["mean"] - of[rule] for of in (ours, before, theirs))
        row = [RULES[rule], pages.mean_range(ours[rule], 1)]
        rows.append([*row, *(pages.mean(gap, 1) for gap in gaps)])
    return rows


def main() -> None:
    out = pages.parser(__doc__).parse_args().out
    measured = [flanders(out), *(long_tail(name, out) for name in FILES[1:])]
    for name, table in zip(FILES, measured, strict=True):
        if not table.empty:
            path = HERE / f"{name}.csv"
            rows = pd.concat([pd.read_csv(path), table])
            rows = rows.drop_duplicates(list(rows.columns[:3]), keep="last")
            pages.keep(path, rows, ".4f")
    pages.write(PAGE, tables())


if __name__ == "__main__":
    main()
