"""The figure that shows the tension: worst group against attack success, and who was heard."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clients.shard import Role
from fl_testbed.report.results import mean_and_interval

matplotlib.use("Agg")  # no display is needed

# Okabe and Ito's palette: told apart by all common kinds of colour vision, and in grey.
ROLE_COLOURS = {
    Role.HONEST_MAJORITY: "#0072B2",
    Role.HONEST_MINORITY: "#E69F00",
    Role.POISONED: "#D55E00",
}
CLOSE = 3.0  # percent points: points nearer than this share a label


def tension_figure(results: pd.DataFrame, title: str, path: Path) -> None:
    """Write the figure of a comparison; points and bars carry the same numbers."""
    variants = list(dict.fromkeys(results["variant"]))
    groups = {variant: results[results["variant"] == variant] for variant in variants}
    figure = Figure(figsize=(12, 1.6 + 0.45 * max(8, len(variants))), layout="constrained")
    plane, bars = figure.subplots(1, 2, width_ratios=(1, 1.15))
    _plane(plane, list(groups.values()))
    _bars(bars, groups)
    figure.suptitle(title)
    figure.savefig(path, dpi=150)


def _plane(axes: Axes, groups: list[pd.DataFrame]) -> None:
    points = []
    for number, runs in enumerate(groups, start=1):
        x, x_half = mean_and_interval(runs["worst_group_accuracy"] * 100)
        y, y_half = mean_and_interval(runs["attack_success_rate"] * 100)
        if np.isnan([x, y]).any():
            continue
        oracle = bool(runs["oracle"].any())
        axes.errorbar(x, y, np.nan_to_num(y_half), np.nan_to_num(x_half), color="0.6", zorder=1)
        axes.scatter(
            x,
            y,
            s=70,
            zorder=2,
            color="white" if oracle else "0.2",
            edgecolors="0.2",
            linewidths=1.5,
        )
        points.append((x, y, str(number)))
    for x, y, label in _joined(points):
        above = y < 90
        axes.annotate(
            label,
            (x, y),
            xytext=(0, 8 if above else -9),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontweight="bold",
        )
    axes.set(xlim=(-4, 104), ylim=(-4, 104))
    axes.set(
        xlabel="worst-group accuracy, %  (right is fair)",
        ylabel="attack success rate, %  (low is safe)",
    )
    axes.grid(alpha=0.3)


def _joined(points: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Give points that lie on each other one common label."""
    joined: list[tuple[float, float, str]] = []
    for x, y, label in points:
        for place, (other_x, other_y, other) in enumerate(joined):
            if np.hypot(x - other_x, y - other_y) < CLOSE:
                joined[place] = ((x + other_x) / 2, max(y, other_y), f"{other}, {label}")
                break
        else:
            joined.append((x, y, label))
    return joined


def _bars(axes: Axes, groups: dict[str, pd.DataFrame]) -> None:
    height = 0.26
    for place, role in enumerate(Role):
        stats = [mean_and_interval(runs[f"weight_ratio.{role.value}"]) for runs in groups.values()]
        means, halves = np.array(stats).T
        rows = np.arange(len(groups)) + (place - 1) * height
        axes.barh(
            rows,
            np.nan_to_num(means),
            height,
            xerr=np.nan_to_num(halves),
            color=ROLE_COLOURS[role],
            label=role.value.replace("_", " "),
            error_kw={"ecolor": "0.3", "elinewidth": 1},
        )
        for row, mean in zip(rows, means, strict=True):
            text = "none" if np.isnan(mean) else f"{mean:.2f}"
            axes.annotate(
                text,
                (np.nan_to_num(mean), row),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                color="0.3",
            )
    names = [
        f"{number}  {variant}{' †' if runs['oracle'].any() else ''}"
        for number, (variant, runs) in enumerate(groups.items(), start=1)
    ]
    axes.set_yticks(np.arange(len(groups)), names)
    axes.invert_yaxis()
    axes.axvline(1, color="0.2", linewidth=1)
    axes.set_xlabel("weight ratio: below 1 silenced, above 1 amplified   († oracle)")
    axes.margins(x=0.08)
    axes.legend(loc="best", frameon=True)
    axes.grid(axis="x", alpha=0.3)
