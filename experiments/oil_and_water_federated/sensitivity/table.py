"""Do results depend on the setting: more training, more data, other networks, more attackers?"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments import pages
from experiments.oil_and_water_federated import runs
from experiments.oil_and_water_federated.combinations.table import FAIR, reached
from fl_testbed.report.figures.style import FAINT, house_style

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
SETTINGS = {
    "base": "as it is",
    "epochs": "3 epochs",
    "examples": "300 examples",
    "dirichlet": "classes uneven",
    "wide": "128 units",
    "cnn": "CNN",
    "attackers": "4 attackers",
}
"""Settings, each of which differs in one thing from the other pages'."""
IDEAL = "jtt_ideal"


def tables(results: Path = runs.HERE) -> dict[str, pages.Rows]:
    """Return the tables of the page: one per federation, and ASR at its highest."""
    rows = runs.kept("sensitivity", results)
    return runs.by_federation(rows, of) | {"highest": highest(rows)}


def of(rows: pd.DataFrame) -> list[list[str]]:
    """Return worst group / ASR by method and setting, bold where both goals are reached."""
    fair = pages.where(rows, variant=IDEAL).groupby("point")["worst_group"].mean() - FAIR

    def cell(method: str, point: str) -> str:
        own = pages.where(rows, variant=method, point=point)
        return pages.bold(runs.outcome(own), method != IDEAL and reached(own, fair[point]))

    return pages.crossed("worst group / ASR", runs.named(rows["variant"]), settings(rows), cell)


def settings(rows: pd.DataFrame) -> dict[str, str]:
    """Return the settings that occur in rows, with their names for readers."""
    return {point: name for point, name in SETTINGS.items() if point in set(rows["point"])}


def highest(rows: pd.DataFrame) -> list[list[str]]:
    """Return ASR over the five rounds of a run in which it was highest, by method and setting."""

    def cell(at: tuple[str, str], point: str) -> str:
        own = pages.where(rows, federation=at[0], variant=at[1], point=point)
        return pages.mean_pm(own["attack_success_highest"])

    lines = runs.in_each(rows, runs.named(rows["variant"]))
    return pages.crossed("highest ASR", lines, settings(rows), cell)


def figure(results: Path = runs.HERE) -> Figure:
    """Draw each method as points over settings: worst group above, attack success below."""
    rows = runs.kept("sensitivity", results)
    present = runs.federations(rows)
    with house_style():
        drawing = Figure(figsize=(11, 5), layout="constrained")
        panels = drawing.subplots(2, len(present), sharex="col", sharey=True, squeeze=False)
        for (name, title), column in zip(present.items(), panels.T, strict=True):
            there = pages.where(rows, federation=name)
            points, middle = settings(there), (there["variant"].nunique() - 1) / 2
            for axes, figure in zip(column, ("worst_group", "attack_success"), strict=True):
                for place, (method, own) in enumerate(there.groupby("variant", sort=False)):
                    means = own.groupby("point")[figure].mean().reindex([*points])
                    colour = FAINT if method == IDEAL else runs.COLOURS[place]
                    style = {"color": colour, "marker": runs.MARKERS[place], "ls": "", "alpha": 0.8}
                    at = np.arange(len(points)) + 0.07 * (place - middle)  # so that all are seen
                    axes.plot(at, means, label=runs.name_of(str(method)), **style)
                axes.set_xticks(range(len(points)), [*points.values()], rotation=20, ha="right")
            column[0].set_title(title)
        panels[0, 0].set_ylabel("worst group, %")
        panels[1, 0].set_ylabel("attack success, %")
        labels = panels[0, 0].get_legend_handles_labels()
        drawing.legend(*labels, loc="outside right upper")
    return drawing
