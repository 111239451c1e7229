"""Who is lifted, and at what price: a row per run, and the gaps between variants.

    fl-testbed run experiments/lifting/fashion.yaml
    python -m experiments.lifting.table fashion

writes ``results/fashion.csv``, a row per run, and the tables of the README. An attack success rate
is bold where a lift takes it from 5 or less to 90 or more. ``--figure`` draws the README's figure.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from clients.shard import Role
from experiments import pages
from fl_testbed.metrics import attack_success_at
from fl_testbed.metrics.suppression import pairwise_auc
from fl_testbed.report.figures.style import house_style, save
from fl_testbed.report.histories import client_history, weight_ratios_by_round
from fl_testbed.report.results import RunResult, finished_runs
from fl_testbed.scenario import Scenario, load_scenarios

HERE = Path(__file__).parent
PAGE, RESULTS = HERE / "README.md", HERE / "results"
POINTS = {
    "fashion": "Fashion-MNIST",
    "digits": "digits",
    "writers": "MNIST by writer",
    "adult": "Adult",
    "steady": "Fashion-MNIST without a trigger",
}
CONTROLS = {
    "digits_spread": "digits, the minority spread over all clients",
    "fashion_easy": "Fashion-MNIST, a backdoor that is easy to learn",
}
METHODS = {"jtt": "JTT", "agnostic": "agnostic"}
WORST, ASR = "final.worst_group_accuracy", "final.attack_success_rate"
FIGURES = (
    *(WORST, ASR, "flip_rate"),
    *("lifting.ratio.honest_minority", "lifting.ratio.poisoned"),
    *("lifting.flagged_minority.precision", "lifting.flagged_minority.recall"),
    *("lifting.flagged_poisoned.precision", "lifting.flagged_poisoned.recall"),
    *("lifting.auc_by_loss", "lifting.auc_by_confidence", "asr_at_equal_worst_group"),
)
"""Columns of the result files."""


def runs_of(scenarios: list[Scenario], out: Path) -> dict[tuple[str, int], RunResult]:
    """Return the finished runs by variant and seed."""
    return {(run.variant, run.seed): run for _, run in finished_runs(scenarios, out)}


def measured(runs: dict[tuple[str, int], RunResult]) -> pd.DataFrame:
    """Return one row per run.

    ``asr_at_equal_worst_group`` is the attack success rate in the first round in which a run's
    worst group is as good as a common level. With the run's seed, the level is the lowest of the
    best worst groups that the unlifted long run and the standard lifts ever reach.
    """
    histories = {key: pd.read_csv(run.folder / "rounds.csv") for key, run in runs.items()}
    rows = []
    for (variant, seed), run in runs.items():
        own = {
            name: history
            for (name, other), history in histories.items()
            if other == seed and name in ("mean_long", "mean", "jtt", "agnostic")
        }
        if "mean_long" in own:
            del own["mean"]
        level = min(h["worst_group_accuracy"].max() for h in own.values())
        row = {"variant": variant, "seed": seed, "oracle": bool(run.figures.get("oracle", 0))}
        row |= {name: run.figures.get(name, np.nan) for name in FIGURES}
        flips = [v for k, v in run.figures.items() if k.endswith(".flip_rate")]
        row["flip_rate"] = flips[0] if flips else np.nan
        at = attack_success_at(histories[variant, seed], level)
        row["asr_at_equal_worst_group"] = np.nan if at is None else at
        rows.append(row)
    return pd.DataFrame(rows)


def tables() -> dict[str, pages.Rows]:
    """Return the tables of the README, from the result files."""
    results = {name: pd.read_csv(RESULTS / f"{name}.csv") for name in POINTS}
    lifted = pages.records(row for name in POINTS for row in gaps(name, results[name]))
    equal = [["federation", "mean", "JTT", "agnostic", "JTT, ideal †"]]
    for name, table in results.items():
        rates = 100 * table.groupby("variant")["asr_at_equal_worst_group"].mean()
        unlifted = "mean_long" if "mean_long" in rates else "mean"
        shown = rates[[unlifted, "jtt", "agnostic", "jtt_ideal"]]
        equal.append([POINTS[name], *map(pages.number, shown)])
    return {"lifted": lifted, "equal": equal, "controls": controls()}


def gaps(name: str, table: pd.DataFrame) -> Iterator[dict[str, str]]:
    """Yield a row per method: whom it lifts, and what its choice costs beside the ideal one."""
    success = table.pivot_table(index="seed", columns="variant", values=ASR) * 100
    worst = table.pivot_table(index="seed", columns="variant", values=WORST).mean() * 100
    for method, title in METHODS.items():
        standard, ideal, most = (success[method + end] for end in ("", "_ideal", "_worst_case"))
        gap = standard - ideal
        rates = f"{pages.mean_range(success['mean'])} → {pages.mean_range(standard)}"
        taken = round(success["mean"].mean()) <= 5 and round(standard.mean()) >= 90
        served = [pages.number(worst[v]) for v in ("mean", method, f"{method}_ideal")]
        rates = f"{pages.bold(rates, taken)} ({pages.mean(ideal)}, {pages.mean(most)})"
        yield {
            "federation": POINTS[name] if method == "jtt" else "",
            "method": title,
            "worst group: unlifted → lifted (ideal †)": "{} → {} ({})".format(*served),
            "ASR: unlifted → lifted (ideal †, worst case †)": rates,
            "standard − ideal, points (least seed)": (
                f"{pages.mean(gap, 1)} ({pages.number(gap.min(), 1)})"
            ),
            "of worst − ideal": pages.number(gap.mean() / (most - ideal).mean(), 2),
        }


def controls() -> list[list[str]]:
    """Return worst-group accuracy / attack success in the control federations."""
    rows = [["worst group / ASR", "no attack", "unlifted", "JTT", "agnostic", "JTT, ideal †"]]
    for name, title in CONTROLS.items():
        means = 100 * pd.read_csv(RESULTS / f"{name}.csv").groupby("variant")[[WORST, ASR]].mean()
        variants = ("no_attack", "mean", "jtt", "agnostic", "jtt_ideal")
        pairs = (map(pages.number, means.loc[v]) if v in means.index else "–" for v in variants)
        rows.append([title, *map(" / ".join, pairs)])
    return rows


def figure(runs: dict[tuple[str, int], RunResult], path: Path) -> None:
    """Draw worst group, attack success, the poisoned weight and the heuristic, over the rounds."""
    variants = [v for v in ("mean_long", "mean", "jtt", "jtt_ideal", "agnostic") if (v, 0) in runs]
    if "mean_long" in variants:
        variants.remove("mean")
    with house_style():
        drawing = Figure(figsize=(10, 6.4), layout="constrained")
        axes = drawing.subplots(2, 2, sharex=True).flatten()
        for variant in variants:
            own = [run for (name, _), run in runs.items() if name == variant]
            tables = [pd.read_csv(run.folder / "rounds.csv") for run in own]
            label = f"{variant} †" if variant.endswith("ideal") else variant
            for place, column in enumerate(("worst_group_accuracy", "attack_success_rate")):
                curve = pd.concat(tables).groupby("round")[column].mean() * 100
                axes[place].plot(curve.index, curve, label=label)
            ratios = [weight_ratios_by_round(client_history(run.folder)) for run in own]
            curve = pd.concat(r[Role.POISONED.value] for r in ratios).groupby("round").mean()
            axes[2].plot(curve.index, curve, label=label)
            clients = pd.concat(pd.read_csv(run.folder / "clients.csv") for run in own)
            aucs = {
                round_: auc
                for round_, rows in clients.groupby("round")
                if (auc := pairwise_auc(rows, "believed_loss")) is not None
            }
            axes[3].plot(list(aucs), list(aucs.values()), label=label)
        titles = ("worst-group accuracy, %", "attack success, %", "poisoned weight over fair share")
        titles += ("attacker's loss above the minority's (AUC)",)
        for place, title in zip(axes, titles, strict=True):
            place.set(title=title, xlabel="round")
        axes[3].axhline(0.5, color="0.6", linewidth=1)
        axes[0].legend(fontsize=8)
        save(drawing, path, (".png",))


def main() -> None:
    parser = pages.parser(__doc__)
    parser.add_argument("name", choices=sorted(p.stem for p in HERE.glob("*.yaml")))
    parser.add_argument("--figure", action="store_true", help="draw the curves too")
    arguments = parser.parse_args()
    runs = runs_of(load_scenarios(HERE / f"{arguments.name}.yaml"), arguments.out)
    table = measured(runs)
    pages.keep(RESULTS / f"{arguments.name}.csv", table)
    pages.write(PAGE, tables())
    if arguments.figure:
        figure(runs, RESULTS / f"{arguments.name}")


if __name__ == "__main__":
    main()
