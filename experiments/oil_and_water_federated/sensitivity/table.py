"""Does it hang on the setting: more training, more data, other networks, more attackers?"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from experiments import pages
from experiments.oil_and_water_federated import runs
from experiments.oil_and_water_federated.combinations.table import FAIR, reached
from fl_testbed.report.figures.style import FAINT, GROUP_COLOURS, house_style

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
"""One thing is other than on the other pages."""
IDEAL = "jtt_ideal"
MARKERS = "os^DvpX*"


def tables(results: Path = runs.HERE) -> dict[str, str]:
    """Return the tables of the page: one per federation, and ASR at its highest."""
    rows = runs.kept("sensitivity", results)
    return runs.by_federation(rows, of) | {"highest": pages.markdown(highest(rows))}


def of(rows: pd.DataFrame) -> list[list[str]]:
    """Return worst group / ASR by method and setting, bold where both goals are reached."""
    points = [point for point in SETTINGS if point in set(rows["point"])]
    lines = [["worst group / ASR", *(SETTINGS[point] for point in points)]]
    fair = rows[rows["variant"] == IDEAL].groupby("point")["worst_group"].mean() - FAIR
    for method, own in rows.groupby("variant", sort=False):
        cells = []
        for point in points:
            there = own[own["point"] == point]
            both = method != IDEAL and reached(there, fair[point])
            cells.append(pages.bold(runs.outcome(there), both))
        lines.append([runs.name_of(str(method)), *cells])
    return lines


def highest(rows: pd.DataFrame) -> list[list[str]]:
    """Return ASR over the five rounds of a run in which it was highest, by method and setting."""
    points = [point for point in SETTINGS if point in set(rows["point"])]
    lines = [["highest ASR", *(SETTINGS[point] for point in points)]]
    for name in runs.present(rows):
        there = rows[rows["federation"] == name]
        for method, own in there.groupby("variant", sort=False):
            figures = (own.loc[own["point"] == p, "attack_success_highest"] for p in points)
            label = f"{runs.FEDERATIONS[name]}: {runs.name_of(str(method))}"
            lines.append([label, *(pages.mean_pm(own) if len(own) else "–" for own in figures)])
    return lines


def figure(results: Path = runs.HERE) -> Figure:
    """Draw each method as points over settings: worst group above, attack success below."""
    rows = runs.kept("sensitivity", results)
    present = runs.present(rows)
    with house_style():
        drawing = Figure(figsize=(11, 5), layout="constrained")
        panels = drawing.subplots(2, len(present), sharex="col", sharey=True, squeeze=False)
        for column, name in enumerate(present):
            there = rows[rows["federation"] == name]
            points = [point for point in SETTINGS if point in set(there["point"])]
            figures = {"worst group, %": "worst_group", "attack success, %": "attack_success"}
            for axes, (label, figure) in zip(panels[:, column], figures.items(), strict=True):
                for place, (method, own) in enumerate(there.groupby("variant", sort=False)):
                    means = own.groupby("point")[figure].mean().reindex(points)
                    colour = FAINT if method == IDEAL else GROUP_COLOURS[place]
                    style = {"color": colour, "marker": MARKERS[place], "ls": "", "alpha": 0.8}
                    axes.plot(range(len(points)), means, label=runs.name_of(str(method)), **style)
                if column == 0:
                    axes.set_ylabel(label)
                axes.set_xticks(range(len(points)), [SETTINGS[p] for p in points], rotation=20)
            panels[0, column].set_title(runs.FEDERATIONS[name])
        labels = panels[0, 0].get_legend_handles_labels()
        drawing.legend(*labels, loc="outside right upper")
    return drawing
