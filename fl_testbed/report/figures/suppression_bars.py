"""Weight ratio by role, one group of bars per variant."""

import numpy as np
from matplotlib.figure import Figure

from clients.shard import Role
from fl_testbed.report.columns import WEIGHT_RATIOS
from fl_testbed.report.comparison import Comparison
from fl_testbed.report.figures.style import (
    FAINT,
    INK,
    ROLE_COLOURS,
    ROLE_HATCHES,
    house_style,
    in_lines,
    role_name,
)
from fl_testbed.report.formats import marked_label, marks_explained
from fl_testbed.report.statistics import NO_VALUE

HEIGHT = 0.27  # of a bar; a variant has three
LABEL_WIDTH = 42  # characters of a variant's name, beside its bars


def suppression_bars(comparison: Comparison) -> Figure | None:
    """Draw who was silenced and who amplified; None if no run has weight ratios."""
    keys = [column.key for column in WEIGHT_RATIOS]
    rows = [r for r in comparison.rows if any(r.estimates.get(k, NO_VALUE).n for k in keys)]
    if not rows:
        return None
    shown = [  # without attackers, their bars are left out
        (role, key)
        for role, key in zip(Role, keys, strict=True)
        if any(row.estimates.get(key, NO_VALUE).n for row in rows)
    ]
    with house_style():
        figure = Figure(figsize=(7.2, 1.1 + 0.46 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for place, (role, key) in enumerate(shown):
            stats = [row.estimates.get(key, NO_VALUE) for row in rows]
            means = np.array([value.mean for value in stats])
            halves = np.nan_to_num([value.half_width for value in stats])
            at = np.arange(len(rows)) + (place - (len(shown) - 1) / 2) * HEIGHT
            axes.barh(
                at,
                np.nan_to_num(means),
                HEIGHT * 0.92,
                xerr=np.stack([np.fmin(halves, means), halves]).tolist(),  # no weight is below 0
                color=ROLE_COLOURS[role],
                hatch=ROLE_HATCHES[role],
                edgecolor="white",
                linewidth=0,
                label=role_name(role),
                error_kw={"ecolor": FAINT, "elinewidth": 1},
            )
            for y, mean, half in zip(at, means, halves, strict=True):
                text = "nobody" if np.isnan(mean) else f"{mean:.2f}"
                end = np.nan_to_num(mean) + half
                style = {"fontsize": 6.5, "va": "center", "color": INK}
                axes.annotate(text, (end, y), (3, 0), textcoords="offset points", **style)
        axes.set_yticks(
            np.arange(len(rows)), [in_lines(marked_label(row), LABEL_WIDTH) for row in rows]
        )
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.axvline(1, color=INK, linewidth=1)
        scale = "← silenced    weight over fair share    amplified →"
        axes.set_xlabel("\n".join([scale, "   ".join(marks_explained(rows))]).strip())
        axes.margins(x=0.08)
        axes.set_xlim(left=0)
        axes.grid(axis="x", alpha=0.25)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure
