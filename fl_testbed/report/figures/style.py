"""How all figures look: colours that can be told apart with any colour vision, and in grey."""

import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from secrets import token_hex
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.ticker import MaxNLocator

from clients.shard import Role

INK = "#222222"
"""Text and axes. In the report's SVG it becomes the page's own text colour."""
NO_BREAK = "\N{NO-BREAK SPACE}"
PANEL_WIDTH = 2.9  # inches
TITLE_WIDTH = 26  # characters above a panel
TITLE_LINE = 0.16  # inches that each line below the first adds to a panel
CHARACTER = 0.075  # inches of a legend's text, in the mean
HANDLE = 0.65  # inches of a legend's line and the space around it
LEGEND_LINE = 0.22  # inches
LEAST_PANELS = 2  # a figure is at least this many wide: legend and axis labels need it
SIDE_BY_SIDE = 3  # panels in a row, at most
FAINT = "#888888"
"""A grey that can be seen on white and on black."""

# Okabe and Ito's palette.
ROLE_COLOURS = {
    Role.HONEST_MAJORITY: "#0072B2",
    Role.HONEST_MINORITY: "#E69F00",
    Role.POISONED: "#D55E00",
}
ROLE_HATCHES = {Role.HONEST_MAJORITY: "", Role.HONEST_MINORITY: "///", Role.POISONED: "xxx"}
ROLE_STYLES = {Role.HONEST_MAJORITY: "-", Role.HONEST_MINORITY: "--", Role.POISONED: ":"}
GROUP_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")

SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.prop_cycle": cycler(color=GROUP_COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType: publishers refuse the default, Type 3
    "savefig.dpi": 150,
    "text.parse_math": False,  # a group may be called $5 to $9
    "svg.fonttype": "none",  # text stays text: small files, and readers can search it
    "svg.hashsalt": "fl-testbed",  # the same figure is the same file
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}

DATES = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""Dates to leave out of files: with them the same figure would be another file each time."""


@contextmanager
def house_style() -> Iterator[None]:
    """Draw figures in the house style inside this block."""
    with matplotlib.rc_context(SETTINGS):
        yield


def role_name(role: Role) -> str:
    """Return a role as people write it."""
    return role.value.replace("_", " ")


def panels(titles: Iterable[str], height: float = 1.9) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel for each title, of this height in inches, that share axes.

    A title has as many lines as the panel's width needs.
    """
    titles = list(titles)
    n = len(titles)
    columns = min(SIDE_BY_SIDE, n)
    rows = math.ceil(n / columns)
    lines = [in_lines(title, TITLE_WIDTH) for title in titles]
    height += TITLE_LINE * max(title.count("\n") for title in lines)
    size = (PANEL_WIDTH * max(LEAST_PANELS, columns), height * rows + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for unused in axes.flat[n:]:
        unused.set_visible(False)
    for shown in axes.flat[max(0, n - columns) : n]:
        shown.tick_params(labelbottom=True)
    for panel, title in zip(axes.flat, lines, strict=False):
        panel.set_title(title)
    return figure, list(axes.flat[:n])


def in_lines(label: str, width: int) -> str:
    """Break a label into lines of at most this many characters, after spaces and commas where it
    has any, and within longer words after other signs."""
    lines = [""]
    for phrase in re.findall(r"[^ ,]*[ ,]*", label):
        is_long = len(phrase.rstrip()) > width
        for part in re.findall(r".+?(?:[=_]|\.(?!\d)|$)", phrase) if is_long else [phrase]:
            if len(lines[-1] + part.rstrip()) <= width:
                lines[-1] += part
            else:
                lines += textwrap.wrap(part, width, drop_whitespace=False)
    return "\n".join(line.rstrip() for line in lines if line)


def rounds_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """Label the shared x axis of panels as rounds, with ticks at whole numbers only."""
    figure.supxlabel("round", fontsize=9)
    axes[0].xaxis.set_major_locator(whole_numbers())


def whole_numbers() -> MaxNLocator:
    """Return a locator that puts an axis's ticks at whole numbers only, even if there is one."""
    return MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True, min_n_ticks=1)


def legend_of_panels(
    figure: Figure, axes: Sequence[Axes], *, columns: int, title: str | None = None
) -> None:
    """Give a figure one legend, with each entry of its panels once."""
    handles: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    width = figure.get_figwidth()
    labels = [in_lines(label, int((width - HANDLE) / CHARACTER)) for label in handles]
    columns = next((n for n in range(columns, 1, -1) if _legend_width(labels, n) <= width), 1)
    n_below = max(0, math.ceil(len(labels) / columns) - 1)
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * n_below)
    place = "outside upper right"
    figure.legend(handles.values(), labels, loc=place, ncols=columns, title=title)


def _legend_width(labels: Sequence[str], columns: int) -> float:
    per_column = math.ceil(len(labels) / columns)
    longest = [
        max(map(len, labels[start : start + per_column]))
        for start in range(0, len(labels), per_column or 1)
    ]
    return sum(HANDLE + CHARACTER * characters for characters in longest)


def save(figure: Figure, path: Path, suffixes: Sequence[str] = (".png", ".svg")) -> list[Path]:
    """Write a figure in several formats, on white; the same figure gives the same bytes."""
    files = [path.with_suffix(suffix) for suffix in suffixes]
    path.parent.mkdir(parents=True, exist_ok=True)
    with house_style():  # layout once for all formats: it takes longest
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    for file in files:
        metadata = DATES.get(file.suffix)
        drawn = BytesIO()
        with house_style():
            figure.savefig(drawn, format=file.suffix[1:], facecolor="white", metadata=metadata)
        write_whole(file, drawn.getvalue())
    return files


def write_whole(file: Path, content: bytes) -> None:
    """Write a file whole, or leave the old one as it is, for instance if the disk is full.

    Several jobs of one sweep may do so at once: each first writes to a file of its own.
    """
    partial = file.with_name(f"{file.name}.{token_hex(4)}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
