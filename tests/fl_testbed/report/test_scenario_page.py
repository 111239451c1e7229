"""Every key of a scenario is on the page, with what it means."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from fl_testbed.report.scenario_page import PARTS, scenario_page
from fl_testbed.scenario.catalogue import CATALOGUE

PAGE = (Path(__file__).parents[3] / "docs" / "scenario.md").read_text(encoding="utf-8")
PLAIN = {"optimizer", "lr", "batch_size", "local_epochs", "momentum", "weight_decay", "filters"}
"""Keys whose names say it all."""


def test_the_page_is_what_the_classes_say() -> None:
    assert scenario_page() == PAGE, "run `make docs`"


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.heading)
def test_every_key_is_there(part) -> None:
    if isinstance(part.what, str):
        section, names = PAGE, [f"**`{kind}`**" for kind in CATALOGUE[part.what]]
    else:
        assert issubclass(part.what, BaseModel)
        section = PAGE.split(f"\n## {part.heading}\n")[1].split("\n## ")[0]
        fixed = {"kind"} if part.heading != "engine" else set()
        names = [f"| `{key}` |" for key in part.what.model_fields if key not in fixed]
    assert [name for name in names if name not in section] == []


def test_who_is_the_minority_by_default_is_said() -> None:
    section = PAGE.split("\n## dataset.minority\n")[1].split("\n**")[0]
    assert "By default `{kind: inverted}`" in section
    assert "`csv`: `{kind: none}`" in section
    assert "`adult`, `compas`: `{kind: attributes, by: [sex, label]}`" in section


def test_what_a_key_means_is_said() -> None:
    silent = re.findall(r"^\| `(\w+)` \|.*\|  \|$", PAGE, re.MULTILINE)
    assert set(silent) <= PLAIN


def test_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w-]", "", text.lower().replace(" ", "-")) for text in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
