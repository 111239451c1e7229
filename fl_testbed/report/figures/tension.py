"""The tension plane: worst-group accuracy against attack success, one point per variant."""

import math
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fl_testbed.report.columns import ATTACK_SUCCESS, WORST_GROUP
from fl_testbed.report.comparison import Comparison, Row
from fl_testbed.report.figures.style import FAINT, INK, house_style
from fl_testbed.report.formats import marked_label, marks_explained

FRONT = "#009E73"
CLOSE = (6.5, 4.0)  # percent points across and up: points nearer than this share a label

CHARACTER = 1.5  # percent points that a character of a label is wide


class Point(NamedTuple):
    """One variant in the plane, in percent."""

    x: float
    x_half: float
    y: float
    y_half: float
    number: str
    row: Row


def tension_plane(comparison: Comparison) -> Figure | None:
    """Draw all variants that have both figures; None if there are none.

    Points are numbered as in the key beside them. The corner of fair and safe is bottom right.
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
        x, y = row.estimates.get(WORST_GROUP.key), row.estimates.get(ATTACK_SUCCESS.key)
        if x is None or y is None or math.isnan(x.mean) or math.isnan(y.mean):
            continue
        values = (100 * x.mean, 100 * x.half_width, 100 * y.mean, 100 * y.half_width)
        points.append(Point(*values, str(len(points) + 1), row))
    return points


def _draw(axes: Axes, points: list[Point]) -> None:
    axes.scatter(100, 0, marker="*", s=220, color=FRONT, clip_on=False, zorder=1)
    front = sorted((p for p in points if p.row.is_pareto), key=lambda p: p.x)
    xs, ys = [p.x for p in front], [p.y for p in front]
    axes.step(xs, ys, where="pre", color=FRONT, linewidth=1.5, zorder=1, label="Pareto front")
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
    for x, y, label, level in _levelled(_joined(points)):
        rises = any(
            abs(x - corner) < CLOSE[0] / 2 and low <= y < high - 2
            for corner, low, high in zip(xs, ys, ys[1:], strict=False)
        )
        place = _label_place(x, y, level, beside=rises)  # where the front would cross it
        axes.annotate(
            label, (x, y), textcoords="offset points", fontweight="bold", zorder=4, **place
        )
    axes.set(xlim=(-4, 104), ylim=(-4, 104), aspect="equal")
    axes.set_xlabel("worst-group accuracy, %    fair →")
    axes.set_ylabel("attack success rate, %    ← safe")
    axes.grid(alpha=0.25)


def _within_bounds(mean: float, half: float) -> np.ndarray:
    """Return how far an interval goes down and up, cut at 0 and 100 %."""
    half = float(np.nan_to_num(half))
    return np.array([[min(half, mean)], [min(half, 100 - mean)]]).clip(min=0)


def _levelled(
    labels: list[tuple[float, float, str]],
) -> list[tuple[float, float, str, int]]:
    """Give each label the lowest level above its point on which it covers no other label."""
    placed: list[tuple[float, float, str, int]] = []
    for x, y, label in sorted(labels):
        near = [p for p in placed if abs(p[1] - y) < 2 * CLOSE[1]]
        taken = {p[3] for p in near if x - p[0] < CHARACTER * (len(label) + len(p[2])) / 2 + 1}
        placed.append((x, y, label, min(set(range(len(taken) + 1)) - taken)))
    return placed


def _label_place(x: float, y: float, level: int, *, beside: bool) -> dict[str, Any]:
    """Put a label above its point, or below or inwards where it would leave the axes."""
    up = y < 88
    side = "left" if x < 8 or beside else "right" if x > 92 else "center"
    shift = 4 if beside else {"left": -3, "right": 3, "center": 0}[side]
    return {
        "xytext": (shift, (7 if up else -8) + (11 if up else -11) * level),
        "ha": side,
        "va": "bottom" if up else "top",
    }


def _joined(points: list[Point]) -> list[tuple[float, float, str]]:
    """Give points that lie on each other one common label."""
    joined: list[tuple[float, float, str]] = []
    for x, _, y, _, label, _ in points:
        for place, (other_x, other_y, other) in enumerate(joined):
            if abs(x - other_x) < CLOSE[0] and abs(y - other_y) < CLOSE[1]:
                joined[place] = ((x + other_x) / 2, max(y, other_y), f"{other}, {label}")
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
