"""The results of a question's runs: a row per run, kept as ``results.csv`` in its folder."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import pages
from fl_testbed.metrics import after_round, last_restart, read_table
from fl_testbed.metrics.suppression import pairwise_auc
from fl_testbed.report.figures.style import GROUP_COLOURS, INK
from fl_testbed.report.results import RunResult, finished_runs
from fl_testbed.scenario import load_scenarios
from fl_testbed.scenario.places import parts_of

K = TypeVar("K")
HERE = Path(__file__).parent
FEDERATIONS = {
    "fashion_mnist": "Fashion-MNIST",
    "adult": "Adult",
    "writers": "writers",
    "faces": "faces",
}
SUFFERING = ("fashion_mnist", "adult")
"""The federations in which a group suffers without a lift, and defences cost it more."""
NAMES = {
    "mean": "mean (no defence)",
    "none": "no lift",
    "krum": "Krum",
    "multi_krum": "Multi-Krum",
    "multi_krum_told_2": "Multi-Krum, told 2",
    "bulyan": "Bulyan",
    "coordinate_median": "coordinate median",
    "trimmed_mean": "trimmed mean",
    "mean_around_median": "mean around median",
    "geometric_median": "geometric median (RFA)",
    "centred_clipping": "centred clipping",
    "norm_clipping": "clipping to the median norm",
    "k_norm": "k-norm",
    "k_loss": "k-loss",
    "fltrust": "FLTrust",
    "foolsgold": "FoolsGold",
    "flame": "FLAME",
    "deepsight": "DeepSight",
    "flare": "FLARE",
    "dnc": "DnC",
    "sign_guard": "SignGuard",
    "rflbat": "RFLBAT",
    "robust_learning_rate": "robust learning rate",
    "error_rate_rejection": "ERR",
    "loss_rejection": "LFR",
    "fldetector": "FLDetector",
    "minimum_diameter": "minimum diameter",
    "caf": "CAF",
    "alignins": "AlignIns",
    "lasa": "LASA",
    "feddlad": "FedDLAD",
    "freqfed": "FreqFed",
    "jtt": "JTT",
    "jtt_told_2": "JTT told 2",
    "jtt_told_4": "JTT, told 4",
    "fedmgda_plus_told_2": "FedMGDA+ told 2",
    "jtt_ideal": "JTT, ideal †",
    "jtt_worst_case": "JTT, worst case †",
    "agnostic_ideal": "agnostic, ideal †",
    "agnostic_worst_case": "agnostic, worst case †",
    "agnostic_multi_krum": "agnostic with Multi-Krum",
    "agnostic_trimmed_mean": "agnostic with trimmed mean",
    "jtt_multi_krum": "JTT with Multi-Krum",
    "fedmgda_plus_clipping": "FedMGDA+ with clipping",
    "afl": "AFL",
    "drfa": "DRFA",
    "q_fedavg": "q-FedAvg",
    "fedmgda_plus": "FedMGDA+",
}
"""Methods' names for readers, where they differ from the name in a scenario."""
COMBINED = {
    "agnostic_multi_krum": ("agnostic", "multi_krum"),
    "agnostic_trimmed_mean": ("agnostic", "trimmed_mean"),
    "jtt_multi_krum": ("jtt", "multi_krum"),
    "fedmgda_plus_clipping": ("fedmgda_plus", "norm_clipping"),
}
"""Variants that combine a lift and a rule: by the variant's name, those of lift and rule."""

UNATTACKED = "_unattacked"  # ends the names of lifts where nobody attacks

FIGURES = {
    "accuracy": "final.accuracy",
    "worst_group": "final.worst_group_accuracy",
    "attack_success": "final.attack_success_rate",
    "attack_success_highest": "highest.attack_success_rate",
    "weight_majority": "suppression.honest_majority.weight_ratio",
    "weight_minority": "suppression.honest_minority.weight_ratio",
    "weight_poisoned": "suppression.poisoned.weight_ratio",
    "contribution_minority": "suppression.honest_minority.contribution_ratio",
    "contribution_poisoned": "suppression.poisoned.contribution_ratio",
    "minority_false_positives": "suppression.minority_false_positive_rate",
    "auc_suspicion": "suppression.separability",
}
"""Columns of the result files, and the keys of ``summary.json`` that they hold."""
MARKERS = "os^DpvX*<>P"
COLOURS = (*GROUP_COLOURS[:6], INK, "#8C6D31", "#6A51A3", "#9ECAE1")
"""Of figures of more methods than the house style has colours, whose seventh is pale."""
PERCENT = [
    *("accuracy", "worst_group", "attack_success", "attack_success_highest"),
    "minority_false_positives",
]
SCORES = {"auc_loss": "train_loss", "auc_norm": "update_norm"}
"""AUCs of attackers against honest minority clients, and the column of ``clients.csv`` that each
ranks clients by."""


def name_of(method: str) -> str:
    """Return a method's name for readers."""
    return NAMES.get(method, method.replace("_", " "))


def named(methods: Iterable[str]) -> dict[str, str]:
    """Return the methods, each once, with their names for readers."""
    return {method: name_of(method) for method in methods}


def federations(rows: pd.DataFrame, among: Iterable[str] = FEDERATIONS) -> dict[str, str]:
    """Return the federations that occur in rows, with their names for readers."""
    return {name: FEDERATIONS[name] for name in among if name in set(rows["federation"])}


def in_each(
    rows: pd.DataFrame, of: Mapping[K, str], among: Iterable[str] = FEDERATIONS
) -> dict[tuple[str, K], str]:
    """Return keys and their names for each federation: columns or rows of one table for all."""
    titles = federations(rows, among).items()
    return {(name, key): f"{title}: {text}" for name, title in titles for key, text in of.items()}


def present(rows: pd.DataFrame) -> list[str]:
    """Return the federations that occur in rows: all, except in a quick look."""
    return [*federations(rows)]


def scenario_files(question: str) -> list[Path]:
    """Return a question's scenario files, in the order of federations."""
    names = [*FEDERATIONS]
    files = (HERE / question).glob("*.yaml")
    found = [(names.index(of), file) for file in files if (of := federation_of(file))]
    return [file for _, file in sorted(found)]


def federation_of(file: Path) -> str | None:
    """Return the federation of a scenario file, whose name begins with it."""
    return next((name for name in FEDERATIONS if file.stem.startswith(name)), None)


def measured(files: Iterable[Path], out: Path) -> pd.DataFrame:
    """Return one row per finished run of scenario files, in their order.

    A run's ``point`` is its swept value or, where nothing is swept, the rest of its file's name.
    """
    rows = []
    for file in files:
        scenarios = load_scenarios(file)
        if not (out / scenarios[0].name).exists():  # left out of a quick look
            continue
        for _, run in finished_runs(scenarios, out):
            variant, point = placed(run.variant)
            federation = federation_of(file) or ""
            named_for = file.stem.removeprefix(federation).removeprefix("_")
            row = {"federation": federation, "variant": variant}
            row |= {"point": point or named_for, "seed": run.seed}
            rows.append(row | _figures(run))
    return pd.DataFrame(rows)


def placed(variant: str) -> tuple[str, str]:
    """Return a variant's own name, which may have commas, and the swept value, if there is one."""
    parts = parts_of(variant)
    point = parts.pop().partition("=")[2] if "=" in parts[-1] else ""
    return ",".join(parts) or "default", point


def _figures(run: RunResult) -> dict[str, float]:
    figures = {column: run.figures.get(key, np.nan) for column, key in FIGURES.items()}
    figures |= {column: 100 * figures[column] for column in PERCENT}
    clients = pd.read_csv(run.folder / "clients.csv")
    aucs = {column: pairwise_auc(clients, score) for column, score in SCORES.items()}
    figures |= {name: np.nan if auc is None else auc for name, auc in aucs.items()}
    return figures | _by_third(run.folder, clients)


def _by_third(folder: Path, clients: pd.DataFrame) -> dict[str, float]:
    """Return, for each third of the rounds after a restart, attack success in percent, attackers'
    weight over their fair share, and the lengths of the minority's and of attackers' updates over
    the round's median."""
    tested = read_table(folder / "rounds.csv").query("round > 0")
    tested = after_round(tested, last_restart(tested))
    clients = clients[clients["round"].isin(tested["round"])]
    median = clients.groupby("round")["update_norm"].transform("median")
    clients = clients.assign(length=clients["update_norm"] / median)
    figures = {}
    for place, rounds in enumerate(np.array_split(tested["round"].to_numpy(), 3), start=1):
        success = tested[tested["round"].isin(rounds)]["attack_success_rate"]
        own = clients[clients["round"].isin(rounds)]
        by_role = own.groupby("role")[["weight", "prior_weight", "length"]]
        sums, means = by_role.sum(), by_role.mean()
        figures[f"attack_success_{place}"] = 100 * success.mean()
        weights = sums["weight"] / sums["prior_weight"]
        figures[f"weight_poisoned_{place}"] = weights.get("poisoned", np.nan)
        figures[f"length_minority_{place}"] = means["length"].get("honest_minority", np.nan)
        figures[f"length_poisoned_{place}"] = means["length"].get("poisoned", np.nan)
    return figures


def kept(question: str, results: Path) -> pd.DataFrame:
    """Return a question's rows from a folder of results."""
    return read_table(results / question / "results.csv")


def keep(question: str, results: Path, rows: pd.DataFrame) -> None:
    """Write a question's rows into a folder of results."""
    pages.keep(results / question / "results.csv", rows)


def alone(results: Path) -> pd.DataFrame:
    """Return the runs of rules without a lift and of lifts without a rule, with columns ``lift``
    and ``defence``; their ``point`` is who attacks, named as for rules.

    Lifts are under the federation's own backdoor or no attack; the lift ``none`` is left out, since
    it is the rule ``mean``.
    """
    rules, lifts = kept("defences", results), kept("reweightings", results)
    lifts = lifts[lifts["variant"] != "none"]
    parts = [
        rules.assign(lift="none", defence=rules["variant"]),
        own_backdoor(lifts).assign(point="backdoor", lift=lifts["variant"], defence="mean"),
        lifts[lifts["point"] == "no_attack"].assign(lift=lifts["variant"], defence="mean"),
    ]
    return pd.concat(parts, ignore_index=True)


def tried(results: Path) -> pd.DataFrame:
    """Return the runs of :func:`alone` and those of lifts with rules, in the same columns."""
    both = kept("combinations", results)
    lift = both["variant"].str.removesuffix(UNATTACKED)
    point = (lift == both["variant"]).map({True: "backdoor", False: "no_attack"})
    both = both.assign(lift=lift, defence=both["point"], point=point)
    return pd.concat([alone(results), both], ignore_index=True)


def base_point(results: Path) -> pd.DataFrame:
    """Return the runs that other questions compare with: rules and lifts against the backdoor."""
    rows = alone(results)
    return rows[rows["point"] == "backdoor"].reset_index(drop=True)


def own_backdoor(lifts: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each federation's own backdoor: the hard one, except for faces."""
    of_faces = lifts["federation"] == "faces"
    return lifts[(lifts["point"] == "hard") | of_faces & (lifts["point"] == "easy")]


def panels(drawing: Figure, rows: pd.DataFrame, **how: Any) -> dict[str, Axes]:
    """Return a panel for each federation in rows, side by side, with its name as title."""
    names = federations(rows)
    row = drawing.subplots(1, len(names), sharey=True, squeeze=False, **how)[0]
    for axes, title in zip(row, names.values(), strict=True):
        axes.set_title(title)
    return dict(zip(names, row, strict=True))


def compared(base: pd.DataFrame, varied: pd.DataFrame) -> pd.DataFrame:
    """Return varied runs together with the base runs of the same methods and federations."""
    alike = base["variant"].isin(varied["variant"]) & base["federation"].isin(varied["federation"])
    return pd.concat([varied, base[alike]], ignore_index=True)


def by_federation(
    rows: pd.DataFrame, table: Callable[[pd.DataFrame], pages.Rows]
) -> dict[str, pages.Rows]:
    """Return a table for each federation."""
    return {n: table(pages.where(rows, federation=n)) for n in present(rows)}


def outcome(own: pd.DataFrame) -> str:
    """Return worst group / attack success, means ± half of their intervals."""
    return " / ".join(pages.mean_pm(own[column]) for column in ("worst_group", "attack_success"))


def weights(own: pd.DataFrame, figure: str = "weight") -> str:
    """Return the mean weights (or contributions) of minority / attackers."""
    return " / ".join(pages.mean(own[f"{figure}_{role}"], 2) for role in ("minority", "poisoned"))


def gained(own: pd.DataFrame, other: pd.DataFrame, column: str = "worst_group") -> str:
    """Return the mean difference, paired by seed, ± half its interval; bold where it excludes 0."""
    return pages.difference(own.set_index("seed")[column] - other.set_index("seed")[column])
