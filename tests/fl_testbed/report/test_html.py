"""The report page of a real sweep, as text and in a real browser."""

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from commands import SCENARIO, succeed, write_scenario
from markupsafe import escape
from run_folders import write_run

from fl_testbed.report.html import write_report
from fl_testbed.report.results import find_runs

SWEEP = """
variants:
  mean: {}
  multi_krum: {strategy.aggregation: {kind: multi_krum, n_malicious: 2}}
sweep: {attack: [{kind: none}, {kind: sign_flip}], seed: [0, 1]}
"""
FIGURES = (
    "tension",
    "suppression",
    "defence_by_attack",
    "weights",
    "groups",
    "clients",
    "scores",
    "heard",
)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    write_scenario(folder, SCENARIO.replace("rounds: 4", "rounds: 2") + SWEEP)
    said = succeed("run", "scenario.yaml", "--out", "out", "--report", cwd=folder)
    assert "report: out/small/report.html" in said
    return folder / "out" / "small"


def test_every_figure_is_there_as_png_and_svg_and_in_the_page(sweep: Path) -> None:
    page = (sweep / "report.html").read_text()
    for name in FIGURES:
        assert (sweep / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (sweep / "figures" / f"{name}.svg").read_text()
        assert f'id="{name}-figure_1"' in page
    assert page.count("<svg") == len(FIGURES)


class Links(HTMLParser):
    """Collects whatever a browser would load, and the ids of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data") and value:
                self.loaded.append(value)
            if name == "id" and value:
                self.ids.append(value)


def test_the_page_loads_nothing_and_names_nothing_twice(sweep: Path) -> None:
    page = (sweep / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert all(link.startswith(("#", "data:image/png")) for link in links.loaded)
    assert {link[1:] for link in links.loaded if link[0] == "#"} <= set(links.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(links.ids)
    assert len(links.ids) == len(set(links.ids))


def test_a_sweep_that_was_killed_and_goes_on_has_the_same_page(sweep: Path, tmp_path: Path) -> None:
    again = shutil.copytree(sweep.parents[1], tmp_path / "again")
    small = again / "out" / "small"
    (small / "mean,attack=none" / "seed-1" / "summary.json").unlink()
    shutil.rmtree(small / "multi_krum,attack=sign_flip")
    (small / "report.html").unlink()
    command = ("run", "scenario.yaml", "--out", "out", "--report", "--resume")
    assert succeed(*command, cwd=again).count("done before") == 5
    assert (small / "report.html").read_text() == (sweep / "report.html").read_text()


def test_an_unfinished_sweep_has_a_report_that_says_so(sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(sweep, tmp_path / "small")
    folder = tmp_path / "small" / "mean,attack=none" / "seed-1"
    (folder / "summary.json").unlink()
    (folder / "failure.json").write_text('{"reason": "a <b> & \\udcff"}')  # a file's name
    succeed("report", "small", "--baseline", "mean,attack=sign_flip", cwd=tmp_path)
    page = (tmp_path / "small" / "report.html").read_text()
    assert "8 runs: 7 done, 1 failed" in page
    assert "a &lt;b&gt; &amp; ?" in page
    assert "a <b>" not in page
    assert "difference to mean,attack=sign_flip" in page


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("fl-testbed run 'my file.yaml' --resume", "fl-testbed run 'my file.yaml'"),
        ("fl-testbed run --resume a.yaml --out b", "fl-testbed run a.yaml --out b"),
        ("fl_testbed.api.run('a.yaml', {'rounds': 2})",) * 2,
    ],
)
def test_the_command_stands_as_it_was_given_but_for_the_resume(
    command: str, shown: str, tmp_path: Path
) -> None:
    write_run(tmp_path / "sweep", "mean", 0)
    (tmp_path / "sweep" / "sweep.json").write_text(json.dumps({"command": command, "runs": []}))
    page = write_report(tmp_path / "sweep", find_runs([tmp_path / "sweep"])).read_text()
    assert f"same bytes: <code>{escape(shown)}</code>" in page


def test_a_hash_of_code_is_told_only_where_there_is_another_to_compare_it_with(
    tmp_path: Path,
) -> None:
    rules = {
        "mean": "{kind: mean}",
        "mine": "{kind: 'my.py:rule', sha256: aaa}",
        "edited": "{kind: 'my.py:rule', sha256: bbb}",
    }
    for variant, rule in rules.items():
        run = write_run(tmp_path / "sweep", variant, 0)
        (run / "scenario.yaml").write_text(f"strategy: {{aggregation: {rule}}}\n")

    def differences(*variants: str) -> str:
        runs = find_runs(tmp_path / "sweep" / variant for variant in variants)
        page = write_report(tmp_path, runs).read_text().replace("<wbr>", "")
        return page[page.index("Where the variants differ") :]

    assert "my.py:rule" in differences("mean", "mine")
    assert "sha256" not in differences("mean", "mine")
    assert "sha256" not in differences("mine", "mean")
    assert "sha256: &#34;bbb&#34;" in differences("mine", "edited")


def test_a_number_is_never_broken_and_what_nobody_knows_is_no_value(tmp_path: Path) -> None:
    run = write_run(tmp_path / "sweep", "a_b,lr=0.1", 0)
    (run / "environment.json").write_text('{"commit": null}')  # of an installed package
    page = write_report(tmp_path, find_runs([tmp_path])).read_text()
    assert "a_<wbr>b,<wbr>lr=<wbr>0.1<" in page
    assert "unknown" in page
    assert "None" not in page


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    named = os.environ.get("FL_TESTBED_BROWSER")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = named or next((path for name in names if (path := shutil.which(name))), None)
    with playwright.sync_playwright() as driver:
        found = found or driver.chromium.executable_path  # after `playwright install chromium`
        if not Path(found).exists():
            pytest.skip("needs Chromium: install it, or set FL_TESTBED_BROWSER to its program")
        started = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


def test_a_browser_opens_it_without_errors_or_requests_and_sorts_its_tables(
    sweep: Path, browser
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((sweep / "report.html").as_uri())
    assert trouble == []
    assert [url for url in requests if not url.startswith("data:")] == [page.url]

    table = page.locator("table.sortable").first
    heading = table.locator("thead th").nth(2)
    values = "cells => cells.map(cell => parseFloat(cell.dataset.value))"
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    largest_first = table.locator("tbody tr td:nth-child(3)").evaluate_all(values)
    assert largest_first == sorted(largest_first, reverse=True)
    assert len(set(largest_first)) > 1
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert table.locator("tbody tr td:nth-child(3)").evaluate_all(values) == largest_first[::-1]

    table.locator("thead th").first.locator("button").click()
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_legible_on_a_phone_by_day_and_by_night(sweep: Path, browser, scheme: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page.goto((sweep / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # only tables scroll
    colours = "([...getComputedStyle(document.body)[what].matchAll(/[0-9]+/g)].map(Number))"
    ink, paper = (
        sum(page.evaluate(colours.replace("what", f"'{what}'"))[:3])
        for what in ("color", "backgroundColor")
    )
    assert (ink > paper) == (scheme == "dark")
    assert abs(ink - paper) > 500
    text = page.locator("figure svg text").first
    assert (
        sum(map(int, re.findall(r"\d+", text.evaluate("node => getComputedStyle(node).fill"))[:3]))
        == ink
    )
