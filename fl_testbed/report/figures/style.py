"""How all figures look: colours that all kinds of colour vision, and grey prints, tell apart."""

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
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
SIDE_BY_SIDE = 3  # panels, at most
FAINT = "#888888"
"""Seen on white and on black."""

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
    "svg.fonttype": "none",  # text stays text: small files, and readers can search it
    "svg.hashsalt": "fl-testbed",  # the same figure is the same file
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}

DATES = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""What would make the same figure another file each time."""


@contextmanager
def house_style() -> Iterator[None]:
    """Draw inside in the house style."""
    with matplotlib.rc_context(SETTINGS):
        yield


def role_name(role: Role) -> str:
    """Return a role as people write it."""
    return role.value.replace("_", " ")


def panels(titles: Iterable[str], height: float = 1.9) -> tuple[Figure, list[Axes]]:
    """Return a figure of a panel for each title, so many inches high, that share their axes.

    A title has as many lines as the panel's width needs.
    """
    titles = list(titles)
    n = len(titles)
    columns = min(SIDE_BY_SIDE, n)
    rows = math.ceil(n / columns)
    figure = Figure(figsize=(PANEL_WIDTH * columns, height * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for unused in axes.flat[n:]:
        unused.set_visible(False)
    for shown in axes.flat[max(0, n - columns) : n]:
        shown.tick_params(labelbottom=True)
    for panel, title in zip(axes.flat, titles, strict=False):
        panel.set_title(in_lines(title, TITLE_WIDTH))
    return figure, list(axes.flat[:n])


def in_lines(label: str, width: int) -> str:
    """Break a label into lines of so many characters, after spaces and commas where it has any."""
    lines = textwrap.wrap(label.replace(",", ", "), width, break_on_hyphens=False)
    return "\n".join(lines).replace(", ", ",")


def rounds_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """Let rounds run from left to right in panels that share their axes: there are whole ones."""
    figure.supxlabel("round", fontsize=9)
    axes[0].xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))


def legend_of_panels(
    figure: Figure, axes: Sequence[Axes], *, columns: int, title: str | None = None
) -> None:
    """Give a figure one legend, with everything once that any of its panels shows."""
    handles: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    place = "outside upper right"
    figure.legend(handles.values(), handles, loc=place, ncols=columns, title=title)


def save(figure: Figure, path: Path, suffixes: Sequence[str] = (".png", ".svg")) -> list[Path]:
    """Write a figure in several formats, on white; the same figure gives the same bytes."""
    files = [path.with_suffix(suffix) for suffix in suffixes]
    path.parent.mkdir(parents=True, exist_ok=True)
    with house_style():  # once for all formats: it takes longer than any of them
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
    """Write a file whole or leave what is there, as on a full disk."""
    partial = file.with_name(f"{file.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
