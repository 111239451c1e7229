"""The tension plane: worst-group accuracy against attack success, one point per variant."""

import math
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fl_testbed.report.columns import ATTACK_SUCCESS, WORST_GROUP
from fl_testbed.report.comparison import Comparison, Row
from fl_testbed.report.figures.style import FAINT, INK, house_style
from fl_testbed.report.formats import marked_label, marks_explained

FRONT = "#009E73"
CLOSE = 4.0  # percent points: variants nearer than this share a label

CHARACTER, LINE = 2.0, 4.4  # percent points that a character of a label is wide, and a label high
GAP = 1.8  # between a point and its label, which stands off the bars through the point


class Point(NamedTuple):
    """One variant in the plane, in percent."""

    x: float
    """Attack success."""
    x_half: float
    y: float
    """The worst group's accuracy."""
    y_half: float
    number: str
    row: Row


def tension_plane(comparison: Comparison) -> Figure | None:
    """Draw all variants that have both figures; None if there are none.

    Points are numbered as in the key beside them. The corner of fair and safe is top left.
    """
    points = _points(comparison)
    if not points:
        return None
    with house_style():
        height = max(4.6, 0.9 + 0.2 * len(points))
        figure = Figure(figsize=(8.2, height), layout="constrained")
        plane, key = figure.subplots(1, 2, width_ratios=(1.7, 1))
        _draw(plane, points)
        _key(key, points, len(comparison.rows) - len(points))
    return figure


def _points(comparison: Comparison) -> list[Point]:
    points = []
    for row in comparison.rows:
        x, y = row.estimates.get(ATTACK_SUCCESS.key), row.estimates.get(WORST_GROUP.key)
        if x is None or y is None or math.isnan(x.mean) or math.isnan(y.mean):
            continue
        values = (100 * x.mean, 100 * x.half_width, 100 * y.mean, 100 * y.half_width)
        points.append(Point(*values, str(len(points) + 1), row))
    return points


def _draw(axes: Axes, points: list[Point]) -> None:
    axes.scatter(0, 100, marker="*", s=220, color=FRONT, clip_on=False, zorder=1)
    front = sorted((p for p in points if p.row.is_pareto), key=lambda p: p.x)
    xs, ys = [p.x for p in front], [p.y for p in front]
    axes.step(xs, ys, where="post", color=FRONT, linewidth=1.5, zorder=1, label="Pareto front")
    for point in points:
        axes.errorbar(
            point.x,
            point.y,
            _within_bounds(point.y, point.y_half),
            _within_bounds(point.x, point.x_half),
            fmt="none",
            ecolor=FAINT,
            elinewidth=1,
            zorder=2,
        )
        axes.scatter(
            point.x,
            point.y,
            s=46,
            marker="D" if point.row.is_pareto else "o",
            facecolors=FRONT if point.row.is_pareto else INK if point.row.competes else "none",
            edgecolors=FRONT if point.row.is_pareto else INK,
            linewidths=1.4,
            zorder=3,
        )
    for x, y, label in _placed(points):
        axes.text(x, y, label, ha="center", va="center", fontweight="bold", zorder=4)
    axes.set(xlim=(-4, 104), ylim=(-4, 104), aspect="equal")
    axes.set_xlabel("attack success rate, %    ← safe")
    axes.set_ylabel("worst-group accuracy, %    fair →")
    axes.grid(alpha=0.25)


def _within_bounds(mean: float, half: float) -> np.ndarray:
    """Return how far an interval goes down and up, cut at 0 and 100 %."""
    half = float(np.nan_to_num(half))
    return np.array([[min(half, mean)], [min(half, 100 - mean)]]).clip(min=0)


def _placed(points: list[Point]) -> list[tuple[float, float, str]]:
    """Put each label beside its points, in the corner between their bars where least is covered."""
    taken = [(p.x, p.y, 2.0, 2.0) for p in points]  # middle, and half of width and height
    labels = []
    for x, y, label in _joined(points):
        width, height = CHARACTER * len(label) / 2, LINE / 2
        corners = [
            (x + across * (GAP + width), y + up * (GAP + height))
            for across in (1, -1)
            for up in (1, -1)
        ]
        best = min(corners, key=lambda at: _covered((*at, width, height), taken))
        taken.append((*best, width, height))
        labels.append((*best, label))
    return labels


def _covered(
    box: tuple[float, float, float, float], taken: list[tuple[float, float, float, float]]
) -> float:
    """Return what of a box, given by its middle and half sizes, others cover or lies outside."""
    x, y, width, height = box
    outside = max(0.0, abs(x - 50) + width - 54) + max(0.0, abs(y - 50) + height - 54)
    overlaps = (
        max(0.0, width + w - abs(x - other_x)) * max(0.0, height + h - abs(y - other_y))
        for other_x, other_y, w, h in taken
    )
    return 100 * outside + sum(overlaps)


def _joined(points: list[Point]) -> list[tuple[float, float, str]]:
    """Give points that lie on each other one common label."""
    joined: list[tuple[float, float, str]] = []
    for x, _, y, _, label, _ in points:
        for place, (other_x, other_y, other) in enumerate(joined):
            if abs(x - other_x) < CLOSE and abs(y - other_y) < CLOSE:
                joined[place] = (max(x, other_x), (y + other_y) / 2, f"{other}, {label}")
                break
        else:
            joined.append((x, y, label))
    return joined


def _key(axes: Axes, points: list[Point], n_missing: int) -> None:
    """List the variants by number, and say how many are not in the plane."""
    axes.axis("off")
    step = min(0.055, 1 / (len(points) + 4))
    for place, point in enumerate(points):
        y, colour = 1 - (place + 0.5) * step, FRONT if point.row.is_pareto else INK
        axes.text(0.06, y, point.number, ha="right", va="center", weight="bold", color=colour)
        axes.text(0.1, y, marked_label(point.row), va="center", color=colour)
    notes = ["★ fair and safe", *marks_explained([point.row for point in points])]
    if any(not math.isnan(p.x_half) for p in points):
        notes.append("bars: 95 % intervals over seeds")
    if n_missing:
        notes.append(f"not here, without figures: {n_missing}")
    for place, note in enumerate(notes):
        axes.text(0.02, 1 - (len(points) + 1 + place) * step, note, va="center", color=FAINT)
