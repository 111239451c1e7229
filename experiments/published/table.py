"""Published figures beside ours.

    fl-testbed run experiments/published/flanders_fashion_mnist_no_attack.yaml
    fl-testbed run experiments/published/flanders_fashion_mnist.yaml
    fl-testbed run experiments/published/long_tail_fashion_mnist.yaml
    python experiments/published/table.py [--out RUNS]

Reads the runs that are there, writes a CSV file for each of the two settings, and prints them as
Markdown. FLANDERS reports the best accuracy from the round on in which attackers begin, of one run.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from fl_testbed.engine.launch import run_folder
from fl_testbed.scenario import Scenario, load_scenarios

HERE = Path(__file__).parent
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


def finished(name: str, out: Path) -> Iterator[tuple[Scenario, Path]]:
    """Yield the runs of a scenario that are done."""
    for scenario in load_scenarios(HERE / f"{name}.yaml"):
        folder = run_folder(out, scenario).path
        if (folder / "summary.json").exists():
            yield scenario, folder


def flanders(out: Path) -> pd.DataFrame:
    """Return one row per run: rule, attack, the best accuracies and what was published."""
    rows = []
    for name in ("flanders_fashion_mnist_no_attack", "flanders_fashion_mnist"):
        for scenario, folder in finished(name, out):
            groups = pd.read_csv(folder / "groups.csv")
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
                    "published": FLANDERS[rule][attack],
                }
            )
    return pd.DataFrame(rows)


def long_tail(out: Path) -> pd.DataFrame:
    """Return one row per run: rule, partition and the last accuracy."""
    rows = []
    for scenario, folder in finished("long_tail_fashion_mnist", out):
        rule, partition = scenario.strategy.aggregation.kind, scenario.partition.kind
        rounds = pd.read_csv(folder / "rounds.csv").dropna(subset=["accuracy"])
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where the runs are")
    out = parser.parse_args().out
    for name, table, digits in (
        ("flanders_fashion_mnist", flanders(out), 2),
        ("long_tail_fashion_mnist", long_tail(out), 1),
    ):
        if table.empty:
            continue
        table.to_csv(HERE / f"{name}.csv", index=False, float_format="%.4f", lineterminator="\n")
        keys = [key for key in ("rule", "attack", "partition") if key in table]
        means = table.drop(columns="seed").groupby(keys, sort=False).mean().reset_index()
        print(f"\n{name}\n")
        print("| " + " | ".join(means.columns) + " |")
        print("|" + "---|" * len(keys) + "--:|" * (len(means.columns) - len(keys)))
        for row in means.itertuples(index=False):
            cells = [v if isinstance(v, str) else f"{v:.{digits}f}" for v in row]
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
