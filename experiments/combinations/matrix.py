"""Does any reweighting with any defence serve the worst group and keep the attacker out?

    fl-testbed run experiments/combinations/backdoor.yaml
    fl-testbed run experiments/combinations/flip.yaml
    python experiments/combinations/matrix.py

writes ``results.csv``, a row per run, ``matrix.png``, and prints the tables of the README. A cell
reaches both where its worst-group accuracy is within 5 points of the ideal lift without a defence,
and its attack success within 5 points of the same defence without a lift. ``--inside`` does the
same for the runs of ``inside_clients*.yaml``, without a figure: there is no ideal lift to reach.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fl_testbed.report.figures.style import house_style, save
from fl_testbed.report.results import finished_runs
from fl_testbed.scenario import load_scenarios

HERE = Path(__file__).parent
POISONS = {"backdoor": "hard backdoor", "flip": "label flip without a trigger"}
INSIDE = ("inside_clients", "inside_clients_flip")
MARGIN = 5.0  # points
WORST, ASR = "worst_group_accuracy", "attack_success_rate"


def measured(out: Path, poisons: Iterable[str]) -> pd.DataFrame:
    """Return one row per finished run of the scenarios, which are named for their poisons."""
    rows = []
    for poison in poisons:
        for run in finished_runs(load_scenarios(HERE / f"{poison}.yaml"), out):
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


def reaches_both(worst: pd.DataFrame, success: pd.DataFrame) -> pd.DataFrame:
    """Mark the combinations that a reader hopes for; oracles and single methods are none."""
    if "jtt_ideal" not in worst.index:
        return pd.DataFrame(data=False, index=worst.index, columns=worst.columns)
    fair = worst >= worst.loc["jtt_ideal", "mean"] - MARGIN
    safe = success <= success.loc["none"] + MARGIN
    both = fair & safe
    both["mean"] = False
    both.loc[["none", "jtt_ideal"]] = False
    return both


def markdown(worst: pd.DataFrame, success: pd.DataFrame) -> str:
    lines = [["lift", *worst.columns], ["---"] * (len(worst.columns) + 1)]
    both = reaches_both(worst, success)
    for lift in worst.index:
        cells = [
            f"{'**' if both.loc[lift, d] else ''}{worst.loc[lift, d]:.0f} / "
            f"{success.loc[lift, d]:.0f}{'**' if both.loc[lift, d] else ''}"
            for d in worst.columns
        ]
        lines.append([f"{lift} †" if lift == "jtt_ideal" else lift, *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def figure(table: pd.DataFrame, path: Path) -> None:
    """Draw a matrix per poison: its colour is worst-group accuracy less attack success."""
    with house_style():
        drawing = Figure(figsize=(16.5, 5.2), layout="constrained")
        for axes, (poison, title) in zip(drawing.subplots(1, 2), POISONS.items(), strict=True):
            worst, success = cells_of(table, poison)
            both = reaches_both(worst, success).to_numpy()
            image = axes.imshow(worst - success, cmap="RdYlBu", vmin=-100, vmax=100, aspect="auto")
            for (row, column), value in np.ndenumerate(worst.to_numpy()):
                text = f"{value:.0f} / {success.iloc[row, column]:.0f}"
                shade = "white" if abs(value - success.iloc[row, column]) > 72 else "0.1"
                axes.text(column, row, text, ha="center", va="center", fontsize=9, color=shade)
                if both[row, column]:
                    corner = (column - 0.47, row - 0.45)
                    axes.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, lw=2.5, ec="0.1"))
            names = [f"{lift} †" if lift == "jtt_ideal" else lift for lift in worst.index]
            axes.set_yticks(range(len(names)), names)
            axes.set_xticks(range(len(worst.columns)), worst.columns, rotation=25, ha="right")
            axes.set(title=f"{title}: worst group / attack success, %")
        drawing.colorbar(image, ax=drawing.axes, label="worst group − attack success, points")
        save(drawing, path, (".png",))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where the runs are")
    parser.add_argument("--inside", action="store_true", help="JTT inside clients instead")
    arguments = parser.parse_args()
    table = measured(arguments.out, INSIDE if arguments.inside else POISONS)
    path = HERE / ("inside_clients.csv" if arguments.inside else "results.csv")
    table.to_csv(path, index=False, float_format="%.4g", lineterminator="\n")
    if arguments.inside:
        for name in INSIDE:
            print(f"{name}\n\n{markdown(*cells_of(table, name))}")
        return
    for poison, title in POISONS.items():
        worst, success = cells_of(table, poison)
        print(f"{title}\n\n{markdown(worst, success)}")
    figure(table, HERE / "matrix")


if __name__ == "__main__":
    main()
