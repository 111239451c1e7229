"""A comparison for people and for programs: terminal, Markdown, LaTeX, CSV."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fl_testbed.report.columns import SEPARABILITY, Column, explained
from fl_testbed.report.comparison import FEW_PAIRS, Comparison, Row
from fl_testbed.report.results import Status
from fl_testbed.report.statistics import NO_VALUE, Estimate
from fl_testbed.scenario.naming import named
from fl_testbed.scenario.places import REPLAY

NOTHING = "–"
PARETO, ORACLE, UNATTACKED, DIVERGED, MARK = "◆", "†", "‡", "×", "*"
MEANINGS = {
    PARETO: "Pareto-optimal",
    ORACLE: "oracle",
    UNATTACKED: "nobody attacks",
    DIVERGED: "diverged",
}
"""Of the marks behind a variant's name."""
N_NAMED = 3  # variants that a note names before it counts the others
MOST_COLUMNS = 16  # of a terminal's table; more would be one letter wide
EDGE = 4  # letters of a table's lines and spaces beside a column, and one to spare
LEAST_DIFFERENCE = 1e-6  # weights are float32: smaller ones are rounding


@dataclass
class Cell:
    """One value as text; marked if it is the best, or if a difference is beyond chance."""

    text: str
    is_marked: bool = False
    value: float = math.nan
    """The number to sort by."""


@dataclass
class Grid:
    """One table as text."""

    title: str
    headings: list[str]
    labels: list[str]
    """The variants, with their marks."""
    cells: list[list[Cell]]
    points: list[str]
    """The point of each variant; a line is drawn where it changes."""
    notes: list[str]

    @property
    def rows(self) -> list[tuple[str, list[Cell], bool]]:
        """Each variant's label, its cells, and whether a line is drawn below."""
        ends = [here != below for here, below in pairwise([*self.points, *self.points[-1:]])]
        return list(zip(self.labels, self.cells, ends, strict=True))


def grids(comparison: Comparison) -> list[Grid]:
    """Return a comparison's tables: one per section, then those of the differences."""
    tables = [
        _grid(comparison, title, columns, place == 0)
        for place, (title, columns) in enumerate(comparison.sections.items())
    ]
    if not tables:  # nothing has finished
        tables = [_grid(comparison, "runs", [], True)]
    tables[0].notes += [
        f"{text}: in the others, worst group and accuracy are those of the other groups"
        for text in comparison.untested
    ]
    if comparison.baseline is not None:
        differences = [
            _difference_grid(comparison, title, columns)
            for title, columns in comparison.sections.items()
        ]
        tables += [grid for grid in differences if grid.labels]
    tables[-1].notes += _general_notes(comparison)
    return tables


def terminal(comparison: Comparison, width: int) -> Group:
    """Return the tables for a terminal of this width; marked values are also bold."""
    # Notes go below the table, not into its caption, which would wrap at a narrow table's width.
    parts: list[Table | Text] = []
    for grid in grids(comparison):
        if len(grid.headings) > MOST_COLUMNS:
            parts.append(_left_out(grid))
        else:
            parts += map(_rich, _side_by_side(grid, width))
        parts.append(Text("\n".join([*grid.notes, ""])))
    return Group(*parts)


def _side_by_side(grid: Grid, width: int) -> Iterator[Grid]:
    """Yield a table in parts, each of as many columns as fit into a width beside the labels."""
    labels = min(width // 2, max(map(len, ["variant", *grid.labels])))
    start, room = 0, width - labels - EDGE
    for at, heading in enumerate(grid.headings):
        texts = [*heading.split(), *(f"{row[at].text}{MARK}" for row in grid.cells)]
        taken = EDGE + max(map(len, texts))
        if taken > room and at > start:
            yield _columns(grid, start, at)
            start, room = at, width - labels - EDGE
        room -= taken
    yield _columns(grid, start, len(grid.headings))


def _columns(grid: Grid, start: int, end: int) -> Grid:
    cells = [row[start:end] for row in grid.cells]
    title = grid.title + " (continued)" * (start > 0)
    return replace(grid, title=title, headings=grid.headings[start:end], cells=cells)


def markdown(comparison: Comparison) -> str:
    """Return the tables in Markdown; marked values are bold."""
    lines = []
    for grid in grids(comparison):
        lines += [f"**{grid.title}**", ""]
        lines.append(_markdown_row(["variant", *grid.headings]))
        lines.append("|---" + "|--:" * len(grid.headings) + "|")
        for label, cells, _ in grid.rows:
            texts = [f"**{cell.text}**" if cell.is_marked else cell.text for cell in cells]
            lines.append(_markdown_row([label, *texts]))
        lines += ["", *(f"{note}  " for note in notes_with(grid, "bold")), ""]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "_%&#${}"},
        **{character: f"${character}$" for character in "<>|"},
        "±": r"$\pm$",
        "²": r"$^2$",
        "–": "--",
        "−": "$-$",
        PARETO: r"$^\diamond$",
        ORACLE: r"$^\dagger$",
        UNATTACKED: r"$^\ddagger$",
        DIVERGED: r"$^\times$",
    }
)


def latex(comparison: Comparison) -> str:
    """Return the tables in LaTeX, with booktabs; marked values are bold."""
    lines = [r"% needs \usepackage{booktabs}"]
    for grid in grids(comparison):
        lines += [rf"\begin{{tabular}}{{l{'r' * len(grid.headings)}}}", r"\toprule"]
        halves = [_wrapped(heading).rpartition("\n") for heading in ["variant", *grid.headings]]
        for half in (0, 2):
            if any(parts[half] for parts in halves):
                lines.append(" & ".join(_latex(parts[half]) for parts in halves) + r" \\")
        lines.append(r"\midrule")
        for label, cells, ends in grid.rows:
            texts = [_latex(label)]
            for cell in cells:
                text = _latex(cell.text.replace("-", "−"))  # a minus sign, not a hyphen
                texts.append(rf"\textbf{{{text}}}" if cell.is_marked else text)
            lines.append(" & ".join(texts) + r" \\")
            lines += [r"\midrule"] * ends
        lines += [r"\bottomrule", r"\end{tabular}"]
        lines += [f"% {note}" for note in [grid.title, *notes_with(grid, "bold")]]
        lines.append("")
    return "\n".join(lines)


def comma_separated(comparison: Comparison) -> str:
    """Return one CSV row per variant with plain numbers: fractions are not turned into percent,
    missing values are empty."""
    table = pd.DataFrame([_plain(row, comparison) for row in comparison.rows])
    return table.to_csv(index=False, float_format="%.9g", lineterminator="\n")


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "csv": comma_separated,
    "markdown": markdown,
    "latex": latex,
}
"""What is written as text; the terminal's tables are rich's."""


def value_text(value: Estimate, column: Column, n: int, *, signed: bool = False) -> str:
    """Return a mean with its interval in the column's unit, and its number of seeds if that is not
    n."""
    if math.isnan(value.mean):
        return NOTHING
    sign = "+" if signed else ""
    text = f"{value.mean * column.scale:{sign}.{column.digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    if not math.isnan(value.half_width):
        text += f" ± {value.half_width * column.scale:.{column.digits}f}"
    return text if value.n == n else f"{text} (n={value.n})"


def runs_text(row: Row) -> str:
    """Say how many seeds are done, and what became of the others."""
    done, total = row.counts[Status.DONE], sum(row.counts.values())
    parts = [str(done) if done == total else f"{done} of {total}"]
    parts += [
        f"{count} {status}"
        for status, count in row.counts.items()
        if count and status in (Status.FAILED, Status.UNFINISHED)
    ]
    return ", ".join(parts)


def _marks(row: Row) -> list[str]:
    marks = {
        PARETO: row.is_pareto,
        ORACLE: row.is_oracle,
        UNATTACKED: row.is_unattacked,
        DIVERGED: row.n_diverged,
    }
    return [mark for mark, is_so in marks.items() if is_so]


def marked_label(row: Row) -> str:
    """Return a variant's name with its marks."""
    return " ".join([row.label, *_marks(row)])


def marks_explained(rows: Sequence[Row]) -> list[str]:
    """Return what these variants' marks mean, in a word or two each, for a figure."""
    there = {mark for row in rows for mark in _marks(row)}
    return [f"{mark} {meaning}" for mark, meaning in MEANINGS.items() if mark in there]


def _grid(comparison: Comparison, title: str, columns: list[Column], with_seeds: bool) -> Grid:
    def has_some(row: Row, columns: list[Column]) -> bool:
        return any(row.estimates[column.key].n for column in columns)

    rows = [
        row
        for row in comparison.rows
        # The first table also lists variants without any figure: it says how far their runs are.
        if has_some(row, columns) or (with_seeds and not has_some(row, comparison.columns))
    ]
    grid = Grid(
        f"{comparison.title}: {title}",
        [*(["seeds"] if with_seeds else []), *(column.heading for column in columns)],
        labels=[marked_label(row) for row in rows],
        cells=[],
        points=[row.point for row in rows],
        notes=explained(columns, comparison.evaluations),
    )
    for row in rows:
        done = row.counts[Status.DONE]
        cells = [Cell(runs_text(row), value=done)] if with_seeds else []
        for column in columns:
            value = row.estimates[column.key]
            text = value_text(value, column, done)
            cells.append(Cell(text, row.label in comparison.best[column.key], value.mean))
        grid.cells.append(cells)
    few = [row.label for row in rows if row.has_few_pairs]
    if few and SEPARABILITY in columns:
        text = f"fewer than {FEW_PAIRS} pairs in some run, so that separability says little"
        grid.notes.append(f"{text}: {named(few, N_NAMED)}")
    if any(comparison.best[column.key] for column in columns):
        where = " in each block" if comparison.has_points else ""
        grid.notes.append(f"{MARK} best of the column{where}")
    return grid


def _difference_grid(comparison: Comparison, title: str, columns: list[Column]) -> Grid:
    others = [
        row
        for row in comparison.rows
        if any(row.differences.get(column.key, NO_VALUE).n for column in columns)
    ]
    grid = Grid(
        f"{comparison.title}: {title}, difference to {comparison.baseline}",
        ["pairs", *(column.heading for column in columns)],
        labels=[marked_label(row) for row in others],
        cells=[],
        points=[row.point for row in others],
        notes=[
            f"differences are taken seed by seed, in points where the unit is %; {MARK} the 95 % "
            "interval excludes 0 (not corrected for the number of comparisons)"
        ],
    )
    for row in others:
        n = max((change.n for change in row.differences.values()), default=0)
        cells = [Cell(str(n), value=n)]
        for column in columns:
            change = row.differences[column.key]
            text = value_text(change, column, n, signed=True)
            is_marked = abs(change.mean) > max(change.half_width, LEAST_DIFFERENCE)
            cells.append(Cell(text, is_marked, change.mean))
        grid.cells.append(cells)
    return grid


def _general_notes(comparison: Comparison) -> Iterator[str]:
    rows = comparison.rows
    if comparison.has_other_groups:
        yield (
            "not all are tested on the same groups with the same minority: the best and the "
            "Pareto-optimal are marked among those that are"
        )
    if comparison.on_other_data:
        yield (
            "not all are on the same data, though of the same dataset; different from most are "
            f"{named(comparison.on_other_data, N_NAMED)} (fingerprints are in environment.json)"
        )
    if comparison.of_unlike_seeds:
        unlike = named(comparison.of_unlike_seeds, N_NAMED)
        yield f"runs of one variant differ in more than the seed: {unlike}"
    if any(not math.isnan(e.half_width) for row in rows for e in row.estimates.values()):
        yield "mean ± 95 % interval over seeds (Student's t)"
    if any(row.is_pareto for row in rows):
        other = "no other in its block" if comparison.has_points else "no other"
        yield (
            f"{PARETO} Pareto-optimal: {other} is as good in worst group and in ASR, and better in "
            "one"
        )
    if any(row.is_oracle for row in rows):
        yield f"{ORACLE} oracle: told the truth about clients, not in the running for best"
    if any(row.is_unattacked for row in rows):
        yield f"{UNATTACKED} nobody attacks, not in the running for best"
    diverged = [
        f"{row.label} in {row.n_diverged} of {row.counts[Status.DONE]} seeds"
        for row in rows
        if row.n_diverged
    ]
    if diverged:
        yield (
            f"{DIVERGED} diverged (the model's loss is not finite), not in the running for best: "
            f"{named(diverged, N_NAMED)}"
        )
    for row in rows:
        if row.n_skipped:
            share = f"{row.n_skipped:,} of {row.n_rounds:,}"
            no_rival = ", not in the running for best" * row.stands_still
            file = "events.log" if f",{REPLAY}" in row.label else "rounds.csv"  # no replay has it
            yield f"{row.label}: {share} rounds left the model unchanged, {file} says why{no_rival}"
    yield from (f"failed: {text}" for text in comparison.failed)
    if comparison.failed:
        yield "tracebacks of failed runs are in their events.log"


def notes_with(grid: Grid, word: str) -> list[str]:
    """Return a table's notes, for a format that marks values with bold type or a colour."""
    return [note.replace(f"{MARK} ", f"{word}: ") for note in grid.notes]


def _left_out(grid: Grid) -> Text:
    text = (
        f"{len(grid.headings)} columns do not fit here; they are in the report and in --format csv"
    )
    return Text(f"{grid.title}\n{text}")


def _rich(grid: Grid) -> Table:
    table = Table(title=Text(grid.title), title_justify="left")
    table.add_column("variant", overflow="fold")
    some_marked = [any(row[i].is_marked for row in grid.cells) for i in range(len(grid.headings))]
    for heading, marked in zip(grid.headings, some_marked, strict=True):
        table.add_column(Text(_wrapped(heading) + " " * marked), justify="right", overflow="fold")
    for label, cells, ends in grid.rows:
        texts = []
        for cell, marked in zip(cells, some_marked, strict=True):
            mark = (MARK if cell.is_marked else " ") if marked else ""
            texts.append(Text(cell.text + mark, style="bold" if cell.is_marked else ""))
        table.add_row(Text(label), *texts, end_section=ends)
    return table


def _wrapped(heading: str) -> str:
    """Break a long heading into two lines."""
    first, _, rest = heading.partition(" ")
    return f"{first}\n{rest}" if len(heading) > 12 and rest else heading


def _latex(text: str) -> str:
    return text.translate(LATEX)


def _plain(row: Row, comparison: Comparison) -> dict[str, Any]:
    values: dict[str, Any] = {"name": row.runs[0].name, "variant": row.runs[0].variant}
    if comparison.has_points:
        values["method"] = row.method
    keys = dict.fromkeys(key for other in comparison.rows for key in other.swept)
    values |= {f"swept.{key}": row.swept.get(key, "") for key in keys}  # ready for a pivot table
    values |= {f"n_{status}": row.counts[status] for status in Status}
    values |= {
        "oracle": int(row.is_oracle),
        "unattacked": int(row.is_unattacked),
        "diverged": row.n_diverged,
        "pareto": int(row.is_pareto),
    }
    for column in comparison.columns:
        told = {column.key: row.estimates[column.key]}
        if comparison.baseline is not None:
            change = row.differences.get(column.key, NO_VALUE)
            told[f"{column.key}.difference"] = change
            values[f"{column.key}.difference.p"] = change.p_value
        for key, value in told.items():
            values |= {f"{key}.{name}": figure for name, figure in value._asdict().items()}
    return values
