"""Who was heard in which round: a map of clients by rounds."""

from collections.abc import Mapping

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from clients.shard import Role
from fl_testbed.report.figures.style import (
    INK,
    ROLE_COLOURS,
    house_style,
    legend_of_panels,
    panels,
    role_name,
    rounds_below,
    whole_numbers,
)

MOST = 3.0  # times the fair share, where the colours end
SILENT, FAIR, LOUD = "#111111", "#F2F2F2", "#009E73"
COLOURS = LinearSegmentedColormap.from_list("heard", [(0, SILENT), (1 / MOST, FAIR), (1, LOUD)])
ABSENT = "#C9B8D8"  # not sampled, or gave no answer
Map = tuple[np.ndarray, np.ndarray, list[Role]]
"""Weight over fair share by client and round, the rounds, and each client's role."""


def heard_map(maps: Mapping[str, Map]) -> Figure:
    """Draw a panel per variant: black for silenced, pale for the fair share, green for more.

    Clients stand in the order of their roles; the strip at the left has the roles' colours.
    """
    colours = COLOURS.with_extremes(bad=ABSENT)
    with house_style():
        figure, axes = panels(maps, height=2.2)
        left = min(float(rounds[0]) for _, rounds, _ in maps.values()) - 0.5
        right = max(float(rounds[-1]) for _, rounds, _ in maps.values()) + 0.5
        width = (right - left) * 0.035
        for panel, (ratio, rounds, roles) in zip(axes, maps.values(), strict=True):
            n = len(roles)
            extent = (float(rounds[0]) - 0.5, float(rounds[-1]) + 0.5, n - 0.5, -0.5)
            how = {"aspect": "auto", "interpolation": "nearest", "extent": extent}
            panel.imshow(ratio, colours, vmin=0, vmax=MOST, **how)
            for role in Role:
                rows = [place for place, its in enumerate(roles) if its is role]
                if not rows:
                    continue
                top, bottom = rows[0] - 0.5, rows[-1] + 0.5
                panel.fill_betweenx(
                    [top, bottom],
                    left - 1.6 * width,
                    left - 0.3 * width,
                    color=ROLE_COLOURS[role],
                    linewidth=0,
                    label=role_name(role),
                )
                if bottom < n - 0.5:
                    panel.axhline(bottom, color="white", linewidth=1.2)
                    panel.axhline(bottom, color=INK, linewidth=0.6)
            if np.isnan(ratio).any():
                panel.fill_between(
                    [], [], color=ABSENT, linewidth=0, label="not asked, or no answer"
                )
            panel.spines[:].set_visible(False)
        most = max(len(roles) for _, _, roles in maps.values())
        axes[0].set(xlim=(left - 1.6 * width, right), ylim=(most - 0.5, -0.5))  # all share them
        rounds_below(figure, axes)
        axes[0].yaxis.set_major_locator(whole_numbers())
        figure.supylabel("client", fontsize=9)
        bar = figure.colorbar(axes[0].images[0], ax=axes, shrink=0.8, extend="max", pad=0.01)
        bar.set_label("weight over fair share")
        legend_of_panels(figure, axes, columns=4)
    return figure
