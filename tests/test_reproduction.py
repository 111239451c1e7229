"""The page of published figures says what the result files say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_table_is_that_of_the_result_files():
    script = runpy.run_path(str(ROOT / "experiments" / "reproduction.py"))
    assert script["page"]() == (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
