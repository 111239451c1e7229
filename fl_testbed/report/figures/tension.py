"""The tension plane: worst-group accuracy against attack success, one point per variant."""

import math
from collections import Counter
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fl_testbed.report.columns import ATTACK_SUCCESS, WORST_GROUP
from fl_testbed.report.comparison import Comparison, Row
from fl_testbed.report.figures.style import (
    FAINT,
    INK,
    TITLE_LINE,
    TITLE_WIDTH,
    house_style,
    in_lines,
)
from fl_testbed.report.formats import UNATTACKED, marked_label, marks_explained
from fl_testbed.report.statistics import NO_VALUE

FRONT = "#009E73"
CLOSE = 4.0  # percent points: variants nearer than this share a label
N_SPANS = 4  # ranges of numbers in a label, at most, so that it fits into a plane
KEY_WIDTH = 48  # characters of a name in the key; longer ones are wrapped

WHOLE, PART = 4.6, 3.0  # inches: width of a plane by itself, and of one of several
# In percentage points, for a plane by itself:
CHARACTER, LINE = 2.0, 4.4  # how wide a character of a label is, and how high a label
GAP = 1.8  # between a point and its label, which stands off the bars through the point
FAR = 4.5  # the same, if labels or points are in the way


class Point(NamedTuple):
    """One variant in a plane, in percent."""

    x: float
    """Attack success."""
    x_half: float
    y: float
    """The worst group's accuracy."""
    y_half: float
    number: int
    row: Row


def tension_plane(comparison: Comparison) -> Figure | None:
    """Draw all variants that have both figures; None if none has, or none is attacked.

    Points are numbered as in the key beside them; the best corner, fair and safe, is top left.
    Where variants meet several swept values, each of these has a plane of its own, and a variant
    has the same number in all planes.
    """
    planes = {} if comparison.nobody_attacks else _planes(comparison)
    if not planes:
        return None
    n_columns = min(3, len(planes))
    n_rows = -(-len(planes) // n_columns)
    titles = [in_lines(at, TITLE_WIDTH) for at in planes]
    side, title = (WHOLE, 0.0) if len(planes) == 1 else (PART, 0.4)
    title += TITLE_LINE * max(text.count("\n") for text in titles)
    drawn = [point for points in planes.values() for point in points]
    lines = _key(drawn, comparison.has_points, n_missing=len(comparison.rows) - len(drawn))
    key_width = max(2.9, 0.6 + 0.085 * max(len(line[1]) for line in lines if line))
    with house_style():
        of_planes, of_key = n_rows * (side + title), 0.2 * len(lines)
        height = max(of_planes, of_key)
        figure = Figure(figsize=(n_columns * side + key_width, height), layout="constrained")
        ratios = (*[side] * n_columns, key_width)
        grid = figure.add_gridspec(n_rows, n_columns + 1, width_ratios=ratios)
        for place, (at, points) in enumerate(zip(titles, planes.values(), strict=True)):
            axes = figure.add_subplot(grid[divmod(place, n_columns)])
            _draw(axes, points, WHOLE / side)
            if of_key > of_planes:
                axes.set_anchor("N")  # beside the key's first names
            if at:
                nobody_attacks = all(point.row.is_unattacked for point in points)
                axes.set_title(f"{at} {UNATTACKED}" if nobody_attacks else at)
        _write(figure.add_subplot(grid[:, -1]), lines, min(0.25 / height, 1 / (len(lines) + 1)))
    return figure


def _planes(comparison: Comparison) -> dict[str, list[Point]]:
    """Return the points of each swept point's plane."""
    planes: dict[str, list[Point]] = {}
    numbers: dict[str, int] = {}
    for row in comparison.rows:
        x, y = (row.estimates.get(c.key, NO_VALUE) for c in (ATTACK_SUCCESS, WORST_GROUP))
        if not (x.n and y.n):
            continue
        values = (100 * x.mean, 100 * x.half_width, 100 * y.mean, 100 * y.half_width)
        number = numbers.setdefault(row.method, len(numbers) + 1)
        planes.setdefault(row.point, []).append(Point(*values, number, row))
    return planes


def _draw(axes: Axes, points: list[Point], enlarged: float) -> None:
    axes.scatter(0, 100, marker="*", s=220 / enlarged, color=FRONT, clip_on=False, zorder=1)
    for groups in dict.fromkeys(p.row.groups for p in points):
        pareto = (p for p in points if p.row.is_pareto and p.row.groups == groups)
        front = sorted(pareto, key=lambda p: p.x)
        xs, ys = [p.x for p in front], [p.y for p in front]
        axes.step(xs, ys, where="post", color=FRONT, linewidth=1.5, zorder=1)
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
            s=46 / enlarged,
            marker="D" if point.row.is_pareto else "o",
            facecolors=FRONT if point.row.is_pareto else INK if point.row.competes else "none",
            edgecolors=FRONT if point.row.is_pareto else INK,
            linewidths=1.4,
            zorder=3,
        )
    for x, y, label in _placed(points, enlarged):
        axes.text(x, y, label, ha="center", va="center", fontweight="bold", zorder=4)
    axes.set(xlim=(-4, 104), ylim=(-4, 104), aspect="equal")
    axes.set_xlabel("attack success rate, %    ← safe")
    axes.set_ylabel("worst-group accuracy, %    fair →")
    axes.grid(alpha=0.25)


def _within_bounds(mean: float, half: float) -> np.ndarray:
    """Return how far an interval reaches down and up, cut at 0 and 100 %."""
    half = float(np.nan_to_num(half))
    return np.array([[min(half, mean)], [min(half, 100 - mean)]]).clip(min=0)


def _placed(points: list[Point], enlarged: float) -> list[tuple[float, float, str]]:
    """Place each label beside its points where it covers least, between their bars or on one."""
    taken = [(p.x, p.y, 2 * enlarged, 2 * enlarged) for p in points]  # centre and half sizes
    labels = []
    for x, y, label in _joined(points, CLOSE * enlarged):
        width, height = enlarged * CHARACTER * len(label) / 2, enlarged * LINE / 2
        costs = {}
        for gap in (GAP, FAR):
            for across, up in ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0)):
                at = (x + across * (enlarged * gap + width), y + up * (enlarged * gap + height))
                costs[at] = _covered((*at, width, height), taken) + width * gap
        best = min(costs, key=costs.__getitem__)
        taken.append((*best, width, height))
        labels.append((*best, label))
    return labels


def _covered(
    box: tuple[float, float, float, float], taken: list[tuple[float, float, float, float]]
) -> float:
    """Return the area of a box (centre and half sizes) that others cover or lies outside."""
    x, y, width, height = box
    outside = max(0.0, abs(x - 50) + width - 54) + max(0.0, abs(y - 50) + height - 54)
    overlaps = (
        max(0.0, width + w - abs(x - other_x)) * max(0.0, height + h - abs(y - other_y))
        for other_x, other_y, w, h in taken
    )
    return 100 * outside + sum(overlaps)


def _joined(points: list[Point], close: float) -> list[tuple[float, float, str]]:
    """Give points that lie on each other one common label."""
    joined: list[tuple[float, float, list[int]]] = []
    for x, _, y, _, number, _ in points:
        for place, (other_x, other_y, numbers) in enumerate(joined):
            if abs(x - other_x) < close and abs(y - other_y) < close:
                joined[place] = (max(x, other_x), (y + other_y) / 2, [*numbers, number])
                break
        else:
            joined.append((x, y, [number]))
    return [(x, y, _listed(numbers)) for x, y, numbers in joined]


def _listed(numbers: list[int]) -> str:
    """Return a label's numbers as text: consecutive ones as a range, and only the first ranges if
    there are more than fit."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    parts = [
        f"{span[0]}–{span[-1]}" if len(span) > 2 else ", ".join(map(str, span)) for span in spans
    ]
    return ", ".join(parts[:N_SPANS]) + ", …" * (len(parts) > N_SPANS)


def _key(
    points: list[Point], has_points: bool, n_missing: int
) -> list[tuple[str, str, str] | None]:
    """Return the key's lines as number, name and colour; below the variants notes, unnumbered."""
    rows = {point.number: point.row for point in points}
    if has_points:  # the front, attacks and divergence differ from plane to plane
        attacked = {point.number for point in points if not point.row.is_unattacked}
        diverged = Counter(point.number for point in points if point.row.n_diverged)
        rows = {
            n: replace(
                row,
                label=row.method,
                is_pareto=False,
                is_unattacked=n not in attacked,
                n_diverged=diverged[n],
            )
            for n, row in rows.items()
        }
    lines: list[tuple[str, str, str] | None] = []
    for number, row in rows.items():
        colour = FRONT if row.is_pareto else INK
        first, *others = in_lines(marked_label(row), KEY_WIDTH).split("\n")
        lines += [(str(number), first, colour), *((" ", text, colour) for text in others)]
    notes = ["★ fair and safe", *marks_explained([point.row for point in points])]
    if any(not math.isnan(point.x_half) for point in points):
        notes.append("bars: 95 % intervals over seeds")
    if n_missing:
        notes.append(f"not here, without figures: {n_missing}")
    return [*lines, None, *(("", note, FAINT) for note in notes)]


def _write(axes: Axes, lines: list[tuple[str, str, str] | None], step: float) -> None:
    """Write lines below each other, None for an empty one."""
    axes.axis("off")
    for place, line in enumerate(lines):
        if line is None:
            continue
        number, text, colour = line
        y = 1 - (place + 0.5) * step
        axes.text(0.06, y, number, ha="right", va="center", weight="bold", color=colour)
        axes.text(0.1 if number else 0.02, y, text, va="center", color=colour)
