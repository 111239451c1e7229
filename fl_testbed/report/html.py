"""The report: one HTML page that holds everything and loads nothing from elsewhere."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape

from fl_testbed.report.comparison import Comparison, compare
from fl_testbed.report.figures.style import INK, save, write_whole
from fl_testbed.report.formats import grids, notes_with
from fl_testbed.report.gallery import pictures
from fl_testbed.report.results import RunResult, Status, noted_data, read_json, scenario_in
from fl_testbed.scenario.leaves import leaves
from fl_testbed.scenario.places import PLAN

PARTS = Path(__file__).parent / "page"


def write_report(
    folder: Path,
    runs: Sequence[RunResult],
    baseline: str | None = None,
    *,
    with_pdf: bool = False,
) -> Path:
    """Write ``report.html`` and the figures of some runs into a folder; return the page's path.

    Runs that were made in the same way give the same page.

    Raises:
        UnknownVariantError: If there is no such baseline.
    """
    comparison = compare(runs, baseline)
    suffixes = (".svg", ".png", *([".pdf"] if with_pdf else []))
    shown = []
    for picture in pictures(comparison):
        drawing, *_ = save(picture.figure, folder / "figures" / picture.name, suffixes)
        svg = Markup(_inline(drawing.read_text(encoding="utf-8"), picture.name))
        shown.append({"title": picture.title, "caption": picture.caption, "svg": svg})
    page = folder / "report.html"
    write_whole(page, _page(comparison, runs, shown, folder).encode(errors="replace"))
    return page


def _page(
    comparison: Comparison,
    runs: Sequence[RunResult],
    shown: list[dict[str, Any]],
    folder: Path,
) -> str:
    environment = Environment(loader=FileSystemLoader(PARTS), autoescape=True, trim_blocks=True)
    environment.filters["breakable"] = _breakable
    first, differences = _scenarios(comparison)
    counts = Counter(run.status for run in runs)
    return environment.get_template("page.html").render(
        title=comparison.title,
        style=Markup((PARTS / "page.css").read_text(encoding="utf-8")),
        script=Markup((PARTS / "sort.js").read_text(encoding="utf-8")),
        n_runs=len(runs),
        n_variants=len(comparison.rows),
        counts=", ".join(f"{counts[status]} {status}" for status in Status if counts[status]),
        failed=comparison.failed,
        grids=grids(comparison),
        notes_with=notes_with,
        pictures=shown,
        command=_command(folder, first),
        first_variant=first.variant if first else "–",
        first_seed=first.seed if first else "–",
        scenario=(first.folder / "scenario.yaml").read_text("utf-8", "replace") if first else "",
        differences=differences,
        environment=list(_environments(runs)),
    )


def _breakable(label: str) -> Markup:
    """Let a narrow column break a variant's name between words, but not within numbers."""
    return Markup(re.sub(r"([,=_]|\.(?!\d))", r"\1<wbr>", str(escape(label))))


def _inline(svg: str, name: str) -> str:
    """Return an SVG to put into a page: no background, ink in the page's colour, unique ids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<g id="patch_1">.*?</g>', "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<image\b[^>]*) id="[^"]*"', r"\1", svg)  # equal images would have equal ids
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", svg)
    return svg.replace(INK.lower(), "currentColor").replace(INK, "currentColor")


def _scenarios(comparison: Comparison) -> tuple[RunResult | None, list[tuple[str, str]]]:
    """Return the first run that has a scenario, and where other variants' scenarios differ."""
    first: RunResult | None = None
    base: dict[str, str] = {}
    differences = []
    for row in comparison.rows:
        begun = next((run for run in row.runs if (run.folder / "scenario.yaml").exists()), None)
        if begun is None:
            continue
        keys = {
            key: json.dumps(value, ensure_ascii=False, default=str)
            for key, value in leaves(scenario_in(begun.folder))
            if key not in ("name", "variant", "seed")
        }
        if first is None:
            first, base = begun, keys
            continue
        # A hash that only one of two scenarios has says nothing new: the methods differ anyway.
        lone = {k for k in keys.keys() ^ base.keys() if k.endswith(".sha256")}
        changed = [f"{k}: {keys[k]}" for k in keys if base.get(k) != keys[k] and k not in lone]
        changed += [f"without {k}" for k in base if k not in keys and k not in lone]
        differences.append((row.label, "; ".join(changed) or "–"))
    return first, differences


def _command(folder: Path, first: RunResult | None) -> str:
    """Return the command that made the runs, without ``--resume``."""
    plan = read_json(folder / PLAN)
    if plan is not None and "command" in plan:
        return re.sub(r" --resume(?!\S)", "", str(plan["command"]))
    return f"fl-testbed run {first.folder / 'scenario.yaml'}" if first else ""


def _environments(runs: Sequence[RunResult]) -> Iterator[tuple[str, str]]:
    """Yield each property of the environments that runs had, with all its values."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        environment = read_json(run.folder / "environment.json")
        if environment is None:
            continue
        for key in ("packages", "python", "platform", "processor", "cores", "gpus", "commit"):
            value = environment.get(key)
            if isinstance(value, list):
                value = ", ".join(value) or "none"
            if isinstance(value, dict):
                value = ", ".join(f"{name} {version}" for name, version in value.items())
            found.setdefault(key, {})["unknown" if value is None else str(value)] = None
        if data := noted_data(run.folder):
            found.setdefault("fingerprint of the data", {})[data[1]] = None
    for key, values in found.items():
        yield key, " / ".join(values)
