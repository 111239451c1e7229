"""How a rule ranks honest minorities and attackers by suspicion."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from clients.shard import Role
from fl_testbed.report.figures.style import (
    NO_BREAK,
    ROLE_COLOURS,
    ROLE_HATCHES,
    house_style,
    legend_of_panels,
    panels,
    role_name,
)

COMPARED = (Role.HONEST_MINORITY, Role.POISONED)
BINS = [place / 20 for place in range(21)]


def score_distributions(
    ranks: Mapping[str, pd.DataFrame], separability: Mapping[str, float]
) -> Figure:
    """Draw a panel per variant: where the two roles stand in the rule's order of suspicion.

    Args:
        ranks: By variant, one row per update: its role, and its rank within its round, 0 to 1.
        separability: By variant, the AUC of suspicion, poisoned against honest minority.
    """
    with house_style():
        figure, axes = panels(f"{v} AUC{NO_BREAK}{separability[v]:.2f}" for v in ranks)
        for panel, table in zip(axes, ranks.values(), strict=True):
            for role in COMPARED:
                own = table.loc[table["role"] == role.value, "rank"].to_numpy()
                if not len(own):
                    continue
                panel.hist(
                    own,
                    BINS,
                    weights=np.full(len(own), 100 / len(own)),
                    histtype="stepfilled",
                    facecolor=to_rgba(ROLE_COLOURS[role], 0.35),
                    edgecolor=ROLE_COLOURS[role],
                    hatch=ROLE_HATCHES[role],
                    linewidth=1.4,
                    label=role_name(role),
                )
            panel.grid(axis="y", alpha=0.25)
        axes[0].set(xlim=(0, 1), ylim=(0, None))
        figure.supxlabel("rank by suspicion within the round: 0 most trusted, 1 least", fontsize=9)
        figure.supylabel("% of the role's updates", fontsize=9)
        legend_of_panels(figure, axes, columns=2)
    return figure
