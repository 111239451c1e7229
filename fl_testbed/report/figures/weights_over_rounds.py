"""Weight over rounds by role: when a strategy began to silence or to amplify."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from clients.shard import Role
from fl_testbed.report.figures.style import (
    INK,
    ROLE_COLOURS,
    ROLE_STYLES,
    house_style,
    legend_of_panels,
    panels,
    role_name,
    rounds_below,
)


def weights_over_rounds(ratios: Mapping[str, Sequence[pd.DataFrame]]) -> Figure:
    """Draw a panel per variant: the mean over its seeds, and a band from lowest to highest.

    Args:
        ratios: By variant, one table per seed: index round, columns roles.
    """
    with house_style():
        figure, axes = panels(ratios)
        for panel, tables in zip(axes, ratios.values(), strict=True):
            panel.axhline(1, color=INK, linewidth=0.7, zorder=1)
            for role in Role:
                by_seed = pd.concat([table[role.value] for table in tables], axis=1).sort_index()
                if by_seed.isna().all(axis=None):
                    continue
                mean = by_seed.mean(axis=1)
                gap = mean.isna()  # a value between two gaps would not show as a line
                alone = ~gap & gap.shift(1, fill_value=True) & gap.shift(-1, fill_value=True)
                panel.plot(
                    mean.index,
                    mean,
                    ROLE_STYLES[role],
                    color=ROLE_COLOURS[role],
                    linewidth=1.6,
                    label=role_name(role),
                    zorder=3,
                )
                panel.plot(mean[alone], ".", color=ROLE_COLOURS[role], zorder=3)
                if by_seed.shape[1] > 1:
                    low, high = by_seed.min(axis=1), by_seed.max(axis=1)
                    panel.fill_between(
                        mean.index, low, high, color=ROLE_COLOURS[role], alpha=0.2, linewidth=0
                    )
            panel.grid(alpha=0.25)
        top = axes[0].get_ylim()[1]
        axes[0].set_ylim(-0.04 * top, top)
        rounds_below(figure, axes)
        figure.supylabel("weight over fair share", fontsize=9)
        legend_of_panels(figure, axes, columns=3)
    return figure
