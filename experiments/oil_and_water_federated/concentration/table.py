"""Is it the minority that is punished, or its concentration in clients of its own?"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from experiments import pages
from experiments.oil_and_water_federated import runs
from fl_testbed.report.figures.style import GROUP_COLOURS, house_style

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
SHARES = (1.0, 0.5, 0.0)
LIFTS = ("agnostic", "jtt")


def tables(results: Path = runs.HERE) -> dict[str, pages.Rows]:
    """Return the tables of the page, one per federation."""
    return runs.by_federation(concentrated(results), of)


def concentrated(results: Path) -> pd.DataFrame:
    """Return the runs, with a column for the share of minority data that minority clients hold."""
    varied = runs.kept("concentration", results)
    varied = varied.assign(concentration=pd.to_numeric(varied["point"]))
    return runs.compared(runs.base_point(results).assign(concentration=1.0), varied)


def of(rows: pd.DataFrame) -> list[list[str]]:
    """Return worst group / ASR by method and concentration."""
    lines = [["worst group / ASR", *(f"{100 * share:.0f} %" for share in SHARES)]]
    lines[0].append("gained by spreading all of it")
    for method in rows["variant"].unique():
        own = {s: pages.where(rows, variant=method, concentration=s) for s in SHARES}
        cells = [
            f"{pages.mean_pm(there['worst_group'])} / {pages.mean(there['attack_success'])}"
            for there in own.values()
        ]
        lines.append([runs.name_of(method), *cells, runs.gained(own[0.0], own[1.0])])
    return lines


def figure(results: Path = runs.HERE) -> Figure:
    """Draw the worst group by how concentrated the minority is."""
    rows = concentrated(results)
    with house_style():
        drawing = Figure(figsize=(10, 3.6), layout="constrained")
        for name, axes in runs.panels(drawing, rows).items():
            for place, method in enumerate(rows["variant"].unique()):
                own = pages.where(rows, federation=name, variant=method)
                means = own.groupby("concentration")["worst_group"].mean()
                style = "s--" if method in LIFTS else "o-"
                colour = GROUP_COLOURS[place % 6]  # the seventh colour is pale
                shares = 100 * means.index
                axes.plot(shares, means, style, color=colour, label=runs.name_of(method))
            axes.set_xticks([100 * share for share in SHARES])
            axes.invert_xaxis()  # as in the tables: concentrated first
        drawing.axes[0].set_ylabel("worst group, %")
        drawing.supxlabel(
            "share of the minority's examples that is in clients of its own, %", size=9
        )
        drawing.legend(*drawing.axes[0].get_legend_handles_labels(), loc="outside right upper")
    return drawing
