"""Does any reweighting with any defence serve the worst group and keep the attacker out?

    fl-testbed run experiments/combinations/backdoor.yaml
    fl-testbed run experiments/combinations/flip.yaml
    python -m experiments.combinations.matrix

writes ``results.csv``, a row per run, ``matrix.png``, and the tables of the README. A cell is bold
where both goals are reached: worst-group accuracy within 5 points of the ideal lift's without a
defence, and attack success within 5 points of the same defence's without a lift. ``--inside`` does
the same for the runs of ``inside_clients*.yaml``, without a figure.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments import pages
from fl_testbed.report.figures.style import house_style, save
from fl_testbed.report.results import finished_runs
from fl_testbed.scenario import load_scenarios

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
POISONS = {"backdoor": "hard backdoor", "flip": "label flip without a trigger"}
INSIDE = ("inside_clients", "inside_clients_flip")
NO_LIFTS = ("none", "spread", "jtt_ideal")  # the last is told who the minority is
DEFENCES = {
    "mean": "mean",
    "multi_krum-5": "Multi-Krum, f = 5",
    "trimmed_mean-4": "trimmed mean, f = 4",
    "coordinate_median": "median",
    "norm_clipping": "clipping",
    "fltrust": "FLTrust",
    "loss_rejection-1": "LFR, f = 1",
    "loss_rejection-5": "LFR, f = 5",
}
LIFTS = {
    "jtt_ideal": "jtt_ideal †",
    "example_jtt": "JTT inside",
    "spread": "none, spread",
    "spread_example_jtt": "JTT inside, spread",
}
MARGIN = 5.0  # points
WORST, ASR = "worst_group_accuracy", "attack_success_rate"


def measured(out: Path, poisons: Iterable[str]) -> pd.DataFrame:
    """Return one row per finished run of the scenarios, which are named for their poisons."""
    rows = []
    for poison in poisons:
        for _, run in finished_runs(load_scenarios(HERE / f"{poison}.yaml"), out):
            lift, _, rule = run.variant.partition(",aggregation=")
            row = {"poison": poison, "lift": lift, "defence": rule, "seed": run.seed}
            row |= {name: 100 * run.figures[f"final.{name}"] for name in (WORST, ASR)}
            rows.append(row)
    return pd.DataFrame(rows)


def cells_of(table: pd.DataFrame, poison: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return mean worst-group accuracy and attack success over seeds, lifts × defences."""
    own = table[table["poison"] == poison]
    means = own.groupby(["lift", "defence"], sort=False)[[WORST, ASR]].mean()
    lifts, defences = own["lift"].unique(), own["defence"].unique()
    worst, success = (means[name].unstack("defence").loc[lifts, defences] for name in (WORST, ASR))
    return worst, success


def reaches_both(worst: pd.DataFrame, success: pd.DataFrame, goal: float) -> pd.DataFrame:
    """Mark the lifts that serve the worst group and do not raise attack success above that without.

    Args:
        worst: Worst-group accuracy, lifts × defences.
        success: Attack success, of the same shape.
        goal: Worst-group accuracy of the ideal lift without a defence.
    """
    unlifted = ["spread" if lift.startswith("spread") else "none" for lift in worst.index]
    safe = success <= success.loc[unlifted].to_numpy() + MARGIN
    both = (worst >= goal - MARGIN) & safe
    both[both.index.isin(NO_LIFTS)] = False
    return both


def tables() -> dict[str, pages.Rows]:
    """Return the tables of the README, from the result files."""
    results, inside = (pd.read_csv(HERE / f"{n}.csv") for n in ("results", "inside_clients"))
    cells = {poison: cells_of(results, poison) for poison in POISONS}
    goals = {poison: worst.loc["jtt_ideal", "mean"] for poison, (worst, _) in cells.items()}
    cells["inside_clients"] = cells_of(inside, "inside_clients")
    goals["inside_clients"] = goals["backdoor"]
    return {name: rows_of(*pair, reaches_both(*pair, goals[name])) for name, pair in cells.items()}


def rows_of(worst: pd.DataFrame, success: pd.DataFrame, both: pd.DataFrame) -> list[list[str]]:
    """Return a row per lift and a column per defence."""
    rows = [["lift", *(DEFENCES[defence] for defence in worst.columns)]]
    for lift in worst.index:
        row = [LIFTS.get(lift, lift)]
        for found in zip(worst.loc[lift], success.loc[lift], both.loc[lift], strict=True):
            cell = " / ".join(map(pages.number, found[:2]))
            row.append(pages.bold(cell, found[2]))
        rows.append(row)
    return rows


def figure(table: pd.DataFrame, path: Path) -> None:
    """Draw a matrix per poison: its colour is worst-group accuracy less attack success."""
    with house_style():
        drawing = Figure(figsize=(9, 8.6), layout="constrained")
        for axes, (poison, title) in zip(drawing.subplots(2, 1), POISONS.items(), strict=True):
            worst, success = cells_of(table, poison)
            both = reaches_both(worst, success, worst.loc["jtt_ideal", "mean"]).to_numpy()
            image = axes.imshow(worst - success, cmap="RdYlBu", vmin=-100, vmax=100, aspect="auto")
            for (row, column), value in np.ndenumerate(worst.to_numpy()):
                text = f"{value:.0f} / {success.iloc[row, column]:.0f}"
                shade = "white" if abs(value - success.iloc[row, column]) > 72 else "0.1"
                axes.text(column, row, text, ha="center", va="center", fontsize=9, color=shade)
                if both[row, column]:
                    corner = (column - 0.47, row - 0.45)
                    axes.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, lw=2.5, ec="0.1"))
            names = [LIFTS.get(lift, lift) for lift in worst.index]
            axes.set_yticks(range(len(names)), names)
            defences = [DEFENCES[name].replace(", f", "\nf") for name in worst.columns]
            axes.set_xticks(range(len(defences)), defences, fontsize=8)
            axes.set_title(f"{title}: worst group / attack success, %; framed: reaches both")
        drawing.colorbar(image, ax=drawing.axes, label="worst group − attack success, points")
        save(drawing, path, (".png",))


def main() -> None:
    parser = pages.parser(__doc__)
    parser.add_argument("--inside", action="store_true", help="JTT inside clients instead")
    arguments = parser.parse_args()
    table = measured(arguments.out, INSIDE if arguments.inside else POISONS)
    path = HERE / ("inside_clients.csv" if arguments.inside else "results.csv")
    pages.keep(path, table)
    pages.write(PAGE, tables())
    if not arguments.inside:
        figure(table, HERE / "matrix")


if __name__ == "__main__":
    main()
