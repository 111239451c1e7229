"""Accuracy of each group over rounds."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from fl_testbed.report.figures.style import (
    FAINT,
    GROUP_COLOURS,
    house_style,
    legend_of_panels,
    panels,
    rounds_below,
)

DASHES = ("-", "--", "-.", ":")
NAMED = len(GROUP_COLOURS)  # with more groups, the worst ones at the end are named


def group_curves(accuracies: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw a panel per variant, a line per group; of many groups, those that end worst stand out.

    Args:
        accuracies: By variant: index round, columns groups, as fractions.
    """
    groups = list(dict.fromkeys(group for table in accuracies.values() for group in table))
    if len(groups) > NAMED:
        last = pd.concat([table.iloc[[-1]] for table in accuracies.values()]).mean()
        named = list(last.sort_values().index[:NAMED])
    else:
        named = groups
    with house_style():
        figure, axes = panels(accuracies)
        for panel, table in zip(axes, accuracies.values(), strict=True):
            for group in table:
                curve = table[group].dropna() * 100
                if group not in named:
                    panel.plot(curve.index, curve, color=FAINT, linewidth=0.5, alpha=0.5)
                    continue
                place = named.index(group)
                panel.plot(
                    curve.index,
                    curve,
                    DASHES[place % len(DASHES)],
                    color=GROUP_COLOURS[place],
                    linewidth=1.6,
                    label=str(group),
                    zorder=3,
                )
            panel.grid(alpha=0.25)
        axes[0].set_ylim(-3, 103)
        rounds_below(figure, axes)
        figure.supylabel("accuracy, %", fontsize=9)
        title = f"the {NAMED} worst of {len(groups)} groups" if len(groups) > NAMED else None
        legend_of_panels(figure, axes, columns=4, title=title)
    return figure
