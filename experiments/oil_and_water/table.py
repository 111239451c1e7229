"""One table: run its scenario (what is done already is kept), and write what came out.

    python experiments/oil_and_water/table.py lifting --engine ray --workers 2

writes ``results/lifting.csv``, a row per run, and ``results/lifting.md``, a row per variant with
the mean over seeds and its range. Arguments after the name go to ``fl-testbed run``.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd

from fl_testbed.metrics import area_under_curve
from fl_testbed.report.results import finished_runs
from fl_testbed.report.statistics import estimate
from fl_testbed.scenario import load_scenarios

HERE = Path(__file__).parent
COLUMNS = {
    "final.accuracy": ("accuracy", 100),
    "final.worst_group_accuracy": ("worst group", 100),
    "final.worst_group_accuracy_with_poisoned": ("worst, poisoned too", 100),
    "final.worst_group_accuracy_unpoisoned": ("worst group, no poison", 100),
    "final.attack_success_rate": ("ASR", 100),
    "final.trigger_rate_unpoisoned": ("trigger alone", 100),
    "final.damage": ("damage", 100),
    "suppression.honest_majority.weight_ratio": ("weight majority", 1),
    "suppression.honest_minority.weight_ratio": ("weight minority", 1),
    "suppression.poisoned.weight_ratio": ("weight poisons", 1),
    "suppression.honest_majority.retention": ("kept majority", 100),
    "suppression.honest_minority.retention": ("kept minority", 100),
    "suppression.poisoned.retention": ("kept poisons", 100),
    "suppression.separability": ("AUC suspicion", 1),
    "last_worst_group": ("worst group, last round", 100),
    "last_asr": ("ASR, last round", 100),
    "auc_client_loss": ("AUC loss", 1),
    "auc_client_norm": ("AUC norm", 1),
    "separation.auc_all": ("AUC all", 1),
    "separation.auc_same_label": ("AUC same label", 1),
    "separation.threshold_error_all": ("threshold error all", 1),
    "separation.threshold_error_same_label": ("threshold error same label", 1),
}
"""Figures of a run by their path in ``summary.json``: heading, and what they are multiplied by."""


def runs_of(name: str, out: Path) -> pd.DataFrame:
    """Return one row per finished run, figures that no run has left out."""
    scenarios = load_scenarios(HERE / f"{name}.yaml", [])
    rows = []
    for run in finished_runs(scenarios, out):
        figures = run.figures
        if (run.folder / "clients.csv").exists():
            figures = figures | last_round(run.folder) | client_aucs(run.folder / "clients.csv")
        method, _, swept = run.variant.partition(",")
        row = {"poison": swept.partition("=")[2], "method": method, "seed": run.seed}
        rows.append(row | {heading: figures.get(key) for key, (heading, _) in COLUMNS.items()})
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def last_round(folder: Path) -> dict[str, float]:
    """Return a federated run's figures after its last round; its summary averages five tests."""
    groups, attacks = (pd.read_csv(folder / f"{name}.csv") for name in ("groups", "attacks"))
    accuracies = groups.loc[groups["round"] == groups["round"].max(), "accuracy"]
    return {
        "last_worst_group": accuracies.min(),
        "last_asr": attacks["attack_success_rate"].iloc[-1],
    }


def client_aucs(file: Path) -> dict[str, float]:
    """Return how a federated run's losses and norms tell attackers from honest minority clients.

    Pairs are compared within rounds. Above 0.5 attackers have the larger ones.
    """
    clients = pd.read_csv(file)
    found = {}
    for figure, column in (("auc_client_loss", "train_loss"), ("auc_client_norm", "update_norm")):
        wins = []
        for _, own in clients[clients[column].notna()].groupby("round"):
            poisoned, minority = (
                own.loc[own["role"] == role, column].to_numpy()
                for role in ("poisoned", "honest_minority")
            )
            if len(poisoned) and len(minority):
                wins.append(area_under_curve(poisoned, minority))
        found[figure] = sum(wins) / len(wins) if wins else float("nan")
    return found


def means(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per variant: mean (lowest-highest) over seeds."""
    scales = dict(COLUMNS.values())
    rows = []
    for (poison, method), own in runs.groupby(["poison", "method"], sort=False):
        row = {"poison": poison, "method": method, "seeds": len(own)}
        for heading in own.columns.intersection(list(scales)):
            values = own[heading].astype(float).to_numpy() * scales[heading]
            digits = 0 if scales[heading] == 100 else 2
            mean = estimate(values).mean
            spread = f"{values.min():.{digits}f}-{values.max():.{digits}f}"
            row[heading] = "" if mean != mean else f"{mean:.{digits}f} ({spread})"
        rows.append(row)
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def epochs_of(name: str, out: Path, method: str) -> pd.DataFrame:
    """Return how well scores tell poisons from the minority, by epoch, for one method."""
    parts = []
    for scenario in load_scenarios(HERE / f"{name}.yaml", []):
        own, _, swept = scenario.variant.partition(",")
        file = out / scenario.name / scenario.variant / f"seed-{scenario.seed}" / "epochs.csv"
        if own == method and file.exists():
            parts.append(
                pd.read_csv(file).assign(poison=swept.partition("=")[2], seed=scenario.seed)
            )
    table = pd.concat(parts)
    figures = [c for c in table.columns if c.startswith(("auc", "threshold"))]
    return table.groupby(["poison", "training", "epoch"], sort=False)[figures].mean().reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(p.stem for p in HERE.glob("[!s]*.yaml")))
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where the runs are")
    arguments, others = parser.parse_known_args()
    scenario = str(HERE / f"{arguments.name}.yaml")
    command = ["-c", "from fl_testbed.cli import main; main()", "run", scenario]
    subprocess.run(
        [sys.executable, *command, "--out", str(arguments.out), *others],
        check=True,
        stdout=sys.stderr,
    )
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    runs = runs_of(arguments.name, arguments.out)
    runs.to_csv(
        results / f"{arguments.name}.csv", index=False, float_format="%.4f", lineterminator="\n"
    )
    text = markdown(means(runs))
    (results / f"{arguments.name}.md").write_text(text, encoding="utf-8")
    if arguments.name == "lifting":
        epochs_of("lifting", arguments.out, "erm").to_csv(
            results / "separation.csv", index=False, float_format="%.3f", lineterminator="\n"
        )
    print(text)


if __name__ == "__main__":
    main()
