"""Examples to look at: images as a sheet, rows of a table as CSV."""

import csv
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from fl_testbed.data.dataset import Feature
from fl_testbed.data.specimens import Specimen, Strip

FORMATS = sorted(FigureCanvasBase.get_supported_filetypes())
"""File name endings that an image may have."""
CELL = 1.15  # inches of an image's side


def image_sheet(strips: Sequence[Strip], title: str, path: Path) -> None:
    """Write strips of images, one row each, every image with its label."""
    n = max(len(strip.specimens) for strip in strips)
    figure = Figure(figsize=(CELL * n + 2.6, CELL * 1.32 * len(strips) + 0.6))
    grid = figure.subplots(
        len(strips),
        n,
        squeeze=False,
        gridspec_kw={"wspace": 0.12, "hspace": 0.36},
    )
    figure.subplots_adjust(
        left=2.4 / figure.get_figwidth(),
        right=1 - 0.2 / figure.get_figwidth(),
        top=1 - 0.75 / figure.get_figheight(),
        bottom=0.12 / figure.get_figheight(),
    )
    for axes_row, strip in zip(grid, strips, strict=True):
        for axes in axes_row:
            axes.axis("off")
        for axes, specimen in zip(axes_row, strip.specimens, strict=False):
            pixels = specimen.input.permute(1, 2, 0).numpy().clip(0, 1)
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.axis("on")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color="0.75", linewidth=0.5)
            axes.set_title(caption(specimen), fontsize=7.5, pad=2)
        text = "\n".join(textwrap.wrap(strip.title, 24))
        axes_row[0].text(
            -0.12, 0.5, text, ha="right", va="center", transform=axes_row[0].transAxes, fontsize=9
        )
    figure.suptitle(title, x=0.01, ha="left", y=1 - 0.12 / figure.get_figheight(), va="top")
    figure.savefig(path, dpi=130)


def caption(specimen: Specimen) -> str:
    """Return an example's label, and what it was before if that differs."""
    if not specimen.called_before:
        return specimen.label
    return f"{specimen.called_before}\n→ {specimen.label}"


def table_sheet(strips: Sequence[Strip], features: Mapping[str, Feature], path: Path) -> None:
    """Write strips of rows, in the units of the table's own columns where these are known."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        n_inputs = len(strips[0].specimens[0].input)
        columns = list(features) or [f"input {i}" for i in range(n_inputs)]
        writer.writerow(["what", "label", "label before", *columns])
        for strip in strips:
            for specimen in strip.specimens:
                row = specimen.input.numpy()
                cells = (
                    [feature.value_of(row) for feature in features.values()]
                    if features
                    else [f"{value:.5g}" for value in row]
                )
                writer.writerow([strip.title, specimen.label, specimen.called_before, *cells])
