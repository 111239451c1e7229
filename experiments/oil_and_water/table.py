"""One table: run its scenario, keeping the runs that are done already, and write the results.

    python -m experiments.oil_and_water.table lifting --engine ray --workers 2

writes ``results/lifting.csv``, a row per run, and the tables of the README. Arguments after the
name go to ``fl-testbed run``.
"""

import subprocess
import sys
from pathlib import Path

import pandas as pd

from experiments import pages
from fl_testbed.metrics.suppression import pairwise_auc
from fl_testbed.report.results import finished_runs
from fl_testbed.scenario import load_scenarios

HERE = Path(__file__).parent
PAGE, RESULTS = HERE / "README.md", HERE / "results"
COLUMNS = {
    "final.accuracy": "accuracy",
    "final.worst_group_accuracy": "worst group",
    "final.worst_group_accuracy_with_poisoned": "worst, poisoned too",
    "final.worst_group_accuracy_unpoisoned": "worst group, no poison",
    "final.attack_success_rate": "ASR",
    "final.trigger_rate_unpoisoned": "trigger alone",
    "final.damage": "damage",
    "suppression.honest_majority.weight_ratio": "weight majority",
    "suppression.honest_minority.weight_ratio": "weight minority",
    "suppression.poisoned.weight_ratio": "weight poisons",
    "suppression.honest_majority.retention": "kept majority",
    "suppression.honest_minority.retention": "kept minority",
    "suppression.poisoned.retention": "kept poisons",
    "suppression.separability": "AUC suspicion",
    "last_worst_group": "worst group, last round",
    "last_asr": "ASR, last round",
    "auc_client_loss": "AUC loss",
    "auc_client_norm": "AUC norm",
    "separation.auc_all": "AUC all",
    "separation.auc_same_label": "AUC same label",
    "separation.threshold_error_all": "threshold error all",
    "separation.threshold_error_same_label": "threshold error same label",
}
"""Figures of a run by their path in ``summary.json``, and their columns in the result files."""

LIFTS = {
    "erm": "ERM",
    "jtt": "JTT (standard)",
    "jtt_ideal": "JTT, ideal †",
    "jtt_worst_case": "JTT, worst case †",
    "jtt_and_poisons": "JTT, flagged and all poisons †",
    "george": "GEORGE (standard)",
    "george_ideal": "GEORGE, ideal †",
    "george_worst_case": "GEORGE, worst case †",
    "george_and_poisons": "GEORGE, flagged and all poisons †",
    "group_dro": "GroupDRO, annotated groups",
    "balanced_groups": "ERM, annotated groups equally likely",
    "balanced_classes": "ERM, classes equally likely",
}
FILTERS = {
    "none": "ERM",
    "loss": "loss, 5 %",
    "loss_by_class": "loss, 5 % of each class",
    "spectral": "spectral signatures, 10 %",
    "spectre": "SPECTRE, 5 %",
    "epic": "EPIc, 0.1 of a class",
    "clustering": "activation clustering",
    "loss_random": "5 % at random",
    "loss_perfect": "perfect (poisons alone) †",
}
ON_ADULT = {
    "none": "ERM",
    "loss_5": "loss, 5 %",
    "loss_8": "loss, 8 %",
    "jtt": "JTT",
    "jtt_ideal": "JTT, ideal †",
    "loss_2_jtt": "loss, 2 %, then JTT",
    "loss_5_jtt": "loss, 5 %, then JTT",
}
COMBINED = {
    "jtt": "JTT",
    "loss_0.005_jtt": "loss 0.5 % → JTT",
    "loss_0.0075_jtt": "loss 0.75 % → JTT",
    "loss_jtt": "loss 1 % → JTT",
    "loss_0.03_jtt": "loss 3 % → JTT",
    "jtt_loss": "JTT → loss 1 %",
    "spectral_jtt": "spectral 3 % → JTT",
    "clustering_jtt": "clustering → JTT",
    "george": "GEORGE",
    "loss_george": "loss 1 % → GEORGE",
    "spectral_george": "spectral 3 % → GEORGE",
    "clustering_george": "clustering → GEORGE",
    "group_dro": "GroupDRO, annotated groups",
    "loss_group_dro": "loss 1 % → GroupDRO",
    "spectral_group_dro": "spectral 3 % → GroupDRO",
    "clustering_group_dro": "clustering → GroupDRO",
    "loss_shielded_jtt": "loss 1 %, minority shielded † → JTT",
    "spectral_shielded_jtt": "spectral 3 %, minority shielded † → JTT",
    "clustering_shielded_jtt": "clustering, minority shielded † → JTT",
    "jtt_ideal": "JTT, ideal †",
}
OTHERS = {
    "subpopulation_hard": "subpopulation, 20 examples",
    "subpopulation_easy": "subpopulation, 200 examples",
    "gradient_matching_hard": "gradient matching, 20 examples, 16/255",
    "gradient_matching_easy": "gradient matching, 200 examples, 64/255",
}
CLIENTS = {
    "mean": "mean",
    "jtt": "JTT over clients",
    "multi_krum": "Multi-Krum",
    "mean_mimic": "mean, minority-mimic",
    "jtt_mimic": "JTT, minority-mimic",
    "multi_krum_mimic": "Multi-Krum, minority-mimic",
}
Runs = dict[tuple[str, str], pd.DataFrame]
"""The runs of a result file by poison and method."""


def runs_of(name: str, out: Path) -> pd.DataFrame:
    """Return one row per finished run, without the figures that no run has."""
    rows = []
    for _, run in finished_runs(load_scenarios(HERE / f"{name}.yaml"), out):
        figures = run.figures
        if (run.folder / "clients.csv").exists():
            figures = figures | last_round(run.folder) | client_aucs(run.folder / "clients.csv")
        method, _, swept = run.variant.partition(",")
        row = {"poison": swept.partition("=")[2], "method": method, "seed": run.seed}
        rows.append(row | {column: figures.get(key) for key, column in COLUMNS.items()})
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def last_round(folder: Path) -> dict[str, float]:
    """Return a federated run's figures after its last round alone; summaries average five tests."""
    groups, attacks = (pd.read_csv(folder / f"{name}.csv") for name in ("groups", "attacks"))
    accuracies = groups.loc[groups["round"] == groups["round"].max(), "accuracy"]
    return {
        "last_worst_group": accuracies.min(),
        "last_asr": attacks["attack_success_rate"].iloc[-1],
    }


def client_aucs(file: Path) -> dict[str, float | None]:
    """Return the AUCs of a federated run's losses and norms, attackers against honest minority.

    Above 0.5, attackers have the larger ones.
    """
    clients = pd.read_csv(file)
    columns = {"auc_client_loss": "train_loss", "auc_client_norm": "update_norm"}
    return {figure: pairwise_auc(clients, column) for figure, column in columns.items()}


def tables() -> dict[str, pages.Rows]:
    """Return the tables of the README, from the result files."""
    lifting, defence, adult, combination, poisons, clients = (
        kept(name) for name in ("lifting", "defence", "adult", "combination", "poisons", "clients")
    )
    ideal = {key: runs for key, runs in lifting.items() if key[1] == "jtt_ideal"}
    return {
        "lifting": lifted(lifting),
        "defence": defended(defence),
        "adult": on_adult(adult),
        "combination": combined({**combination, **ideal}),
        "poisons": other_poisons(poisons),
        "clients": over_clients(clients),
    }


def kept(name: str) -> Runs:
    """Read a result file."""
    runs = pd.read_csv(RESULTS / f"{name}.csv", dtype={"poison": str}).fillna({"poison": ""})
    return {(str(p), str(m)): own for (p, m), own in runs.groupby(["poison", "method"])}


def lifted(runs: Runs) -> list[list[str]]:
    poisons = ("hard", "mimic", "easy")
    rows = [["", "WGA without poison"]]
    rows[0] += [f"{p}: {what}" for p in poisons for what in ("WGA", "ASR", "trigger alone")]
    for method, name in LIFTS.items():
        row = [name, _range(runs["hard", method], "worst group, no poison")]
        for own in (runs[poison, method] for poison in poisons):
            row += [_range(own, "worst group"), _range(own, "ASR"), _mean(own, "trigger alone")]
        rows.append(row)
    return rows


def defended(runs: Runs) -> list[list[str]]:
    rows = [["", "kept poisons / minority / majority", "WGA", "WGA shielded †", "lost", "ASR"]]
    for method, name in FILTERS.items():
        own = runs["", method]
        share = _kept(own, "poisons", "minority", "majority")
        rows.append([name, share, *shielded(runs, method), _range(own, "ASR")])
    return rows


def on_adult(runs: Runs) -> list[list[str]]:
    rows = [["", "WGA", "WGA shielded †", "lost", "ASR", "trigger alone", "accuracy"]]
    for method, name in ON_ADULT.items():
        own = runs["", method]
        rates = [_range(own, "ASR"), _mean(own, "trigger alone"), _mean(own, "accuracy")]
        rows.append([name, *shielded(runs, method), *rates])
    return rows


def shielded(runs: Runs, method: str) -> list[str]:
    """Return worst-group accuracy, the same with the minority shielded, and the paired difference.

    The difference is bold where its interval excludes zero.
    """
    worst = 100 * runs["", method].set_index("seed")["worst group"]
    if ("", f"{method}_shielded") not in runs:
        return [pages.mean_range(worst), "", ""]
    spared = 100 * runs["", f"{method}_shielded"].set_index("seed")["worst group"]
    return [*map(pages.mean_range, (worst, spared)), pages.difference(spared - worst)]


def combined(runs: Runs) -> list[list[str]]:
    """Return the results of filters before lifts, bold where one is as good as the ideal lift.

    That is where the worst group is no lower and attack success is at most 10.
    """
    rows = [[""]]
    for poison in ("hard", "mimic"):
        rows[0] += [f"{poison}: kept poisons / minority", "WGA", "ASR"]
    for method, name in COMBINED.items():
        row = [name]
        for poison in ("hard", "mimic"):
            own, goal = runs[poison, method], runs[poison, "jtt_ideal"]["worst group"].mean()
            both = own["worst group"].mean() >= goal and own["ASR"].mean() <= 0.1
            both &= method != "jtt_ideal"
            row.append(_kept(own, "poisons", "minority"))
            row += [pages.bold(_range(own, what), both) for what in ("worst group", "ASR")]
        rows.append(row)
    return rows


def other_poisons(runs: Runs) -> list[list[str]]:
    rows = [["", "ERM: WGA", "ASR", "JTT: WGA", "ASR", "trigger alone", "JTT, ideal †: ASR"]]
    for poison, name in OTHERS.items():
        row = [name]
        for method in ("erm", "jtt"):
            row += [_range(runs[poison, method], what) for what in ("worst group", "ASR")]
        row += [_mean(runs[poison, "jtt"], "trigger alone")]
        rows.append([*row, _range(runs[poison, "jtt_ideal"], "ASR")])
    return rows


def over_clients(runs: Runs) -> list[list[str]]:
    aucs = {
        "AUC loss": "AUC of training loss",
        "AUC norm": "AUC of the update's norm",
        "AUC suspicion": "AUC of the rule's suspicion",
    }
    rows = [["", "WGA", "ASR", *aucs.values(), "kept minority / attackers"]]
    for method, name in CLIENTS.items():
        own = runs["", method]
        row = [name, _range(own, "worst group, last round"), _range(own, "ASR, last round")]
        row += [pages.mean_range(own[column], 2) for column in aucs]
        rows.append([*row, _kept(own, "minority", "poisons")])
    return rows


def _range(runs: pd.DataFrame, column: str) -> str:
    return pages.mean_range(100 * runs[column])


def _mean(runs: pd.DataFrame, column: str) -> str:
    return pages.mean(100 * runs[column])


def _kept(runs: pd.DataFrame, *whom: str) -> str:
    """Return which share of each role a filter or rule kept, if there is one."""
    columns = [f"kept {role}" for role in whom]
    if not {*columns} <= {*runs.dropna(axis="columns", how="all")}:
        return ""
    return " / ".join(_mean(runs, column) for column in columns)


def epochs_of(name: str, out: Path, method: str) -> pd.DataFrame:
    """Return how well a method's scores separate poisons from the minority, by epoch."""
    parts = []
    for _, run in finished_runs(load_scenarios(HERE / f"{name}.yaml"), out):
        own, _, swept = run.variant.partition(",")
        if own == method:
            epochs = pd.read_csv(run.folder / "epochs.csv")
            parts.append(epochs.assign(poison=swept.partition("=")[2]))
    table = pd.concat(parts)
    figures = [c for c in table.columns if c.startswith(("auc", "threshold"))]
    return table.groupby(["poison", "training", "epoch"], sort=False)[figures].mean().reset_index()


def main() -> None:
    parser = pages.parser(__doc__)
    parser.add_argument("name", choices=sorted(p.stem for p in HERE.glob("[!s]*.yaml")))
    arguments, others = parser.parse_known_args()
    scenario = str(HERE / f"{arguments.name}.yaml")
    command = ["-c", "from fl_testbed.cli import main; main()", "run", scenario]
    subprocess.run(
        [sys.executable, *command, "--out", str(arguments.out), *others],
        check=True,
        stdout=sys.stderr,
    )
    runs = runs_of(arguments.name, arguments.out)
    pages.keep(RESULTS / f"{arguments.name}.csv", runs, ".4f")
    if arguments.name == "lifting":
        separation = epochs_of("lifting", arguments.out, "erm")
        pages.keep(RESULTS / "separation.csv", separation, ".3f")
    pages.write(PAGE, tables())


if __name__ == "__main__":
    main()
