"""Pages whose tables are made from result files say what these say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_table_is_that_of_the_result_files():
    script = runpy.run_path(str(ROOT / "experiments" / "reproduction.py"))
    assert script["page"]() == (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")


def test_the_tables_of_what_escapes_are_those_of_the_result_files():
    folder = ROOT / "experiments" / "escapes"
    script = runpy.run_path(str(folder / "table.py"))
    page = (folder / "README.md").read_text(encoding="utf-8")
    for name in ("fashion", "inside_clients"):
        assert script["markdown"](script["kept"](name)) in page
