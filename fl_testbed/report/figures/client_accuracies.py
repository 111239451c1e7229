"""How accuracy spreads over the honest clients."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from clients.shard import HONEST
from fl_testbed.report.figures.style import (
    ROLE_COLOURS,
    ROLE_STYLES,
    house_style,
    legend_of_panels,
    panels,
    role_name,
)


def client_accuracies(accuracies: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw a panel per variant: the distribution of accuracy over each role's clients.

    Args:
        accuracies: By variant, one row per client: its role and its accuracy, as a fraction.
    """
    with house_style():
        figure, axes = panels(accuracies)
        for panel, table in zip(axes, accuracies.values(), strict=True):
            for role in HONEST:
                own = table.loc[table["role"] == role.value, "accuracy"] * 100
                if not len(own):
                    continue
                panel.ecdf(
                    own,
                    linestyle=ROLE_STYLES[role],
                    color=ROLE_COLOURS[role],
                    linewidth=1.6,
                    label=role_name(role),
                )
            panel.grid(alpha=0.25)
        axes[0].set(xlim=(-3, 103), ylim=(0, 1.03))
        figure.supxlabel("accuracy on what the client holds, %", fontsize=9)
        figure.supylabel("share of the role's clients", fontsize=9)
        legend_of_panels(figure, axes, columns=2)
    return figure
