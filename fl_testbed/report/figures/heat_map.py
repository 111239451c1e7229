"""A map of variants by two factors, such as defence and attack."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fl_testbed.report.columns import ATTACK_SUCCESS, WORST_GROUP, Column
from fl_testbed.report.figures.style import TITLE_LINE, house_style, in_lines

SHOWN = {WORST_GROUP: "viridis", ATTACK_SUCCESS: "viridis_r"}  # light is good in both
LABEL_WIDTH = 22  # characters in a line


def heat_map(cells: pd.DataFrame, rows: str, columns: str) -> Figure:
    """Draw worst-group accuracy and attack success by two factors; light is good, dark is bad.

    Args:
        cells: One row per variant, with its two factors, which no other has, and its means by
            column key, as fractions.
        rows: The factor that varies from row to row.
        columns: The factor that varies from column to column.
    """
    tables = {
        column: _table(cells, rows, columns, column)
        for column in SHOWN
        if column.key in cells and cells[column.key].notna().any()
    }
    n_rows, n_columns = next(iter(tables.values())).shape
    with house_style():
        below = max(in_lines(name, LABEL_WIDTH).count("\n") for name in cells[columns])
        height = 1.5 + 0.34 * n_rows + TITLE_LINE * below
        size = (len(tables) * (1.9 + 0.62 * n_columns), height)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
        for panel, (column, table) in zip(axes, tables.items(), strict=True):
            _draw(panel, table * column.scale, SHOWN[column])
            panel.set_title(column.heading)
            panel.set_xlabel(columns)
        axes[0].set_ylabel(rows)
    return figure


def _table(cells: pd.DataFrame, rows: str, columns: str, column: Column) -> pd.DataFrame:
    order = [list(dict.fromkeys(cells[factor])) for factor in (rows, columns)]
    means = cells.pivot(index=rows, columns=columns, values=column.key)
    return means.reindex(index=order[0], columns=order[1])


def _draw(axes: Axes, table: pd.DataFrame, colours: str) -> None:
    colour_map = matplotlib.colormaps[colours].with_extremes(bad="#BBBBBB")
    values = table.to_numpy()
    axes.imshow(values, colour_map, vmin=0, vmax=100, aspect="auto")
    down, across = ([in_lines(name, LABEL_WIDTH) for name in axis] for axis in table.axes)
    axes.set_xticks(range(len(across)), across, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(down)), down)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        red, green, blue, _ = colour_map(value / 100)
        is_light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
        colour = "black" if is_light else "white"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=8)
