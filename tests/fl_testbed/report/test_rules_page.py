"""What the docstrings of rules say is complete, true where it can be checked, and on the page."""

import inspect
from pathlib import Path

import pytest

from fl_testbed.report.rules_page import CHAPTERS, rules_page
from fl_testbed.scenario.catalogue import CATALOGUE
from fl_testbed.scenario.docstrings import entries, sections
from strategies.aggregation.traits import traits_of

METHODS = {
    kind: spec
    for chapter in CHAPTERS
    for kind, spec in CATALOGUE[chapter].items()
    if hasattr(spec, "function")
}
SAYS = {
    "rules": {"update", "weights", "suspicion"},
    "pre_aggregations": {"updates", "mixing"},
    "reweightings": {"weights", "step"},
    "server_optimizers": {"update", "memory"},
}

every_method = pytest.mark.parametrize("kind", METHODS)


def test_the_page_is_what_the_docstrings_say() -> None:
    page = Path(__file__).parents[3] / "docs" / "rules.md"
    assert page.read_text(encoding="utf-8") == rules_page(), "run `make docs`"


@every_method
def test_every_docstring_says_what_a_reader_needs(kind: str) -> None:
    said = sections(METHODS[kind].function)
    for heading in ("Bound", "Ties", "Variants", "References"):
        assert said.get(heading), heading
    chapter = next(chapter for chapter in CHAPTERS if kind in CATALOGUE[chapter])
    assert SAYS[chapter] <= entries(METHODS[kind].function, "Returns").keys()


@every_method
def test_every_parameter_is_explained_and_no_other(kind: str) -> None:
    method = METHODS[kind].function
    assert list(entries(method, "Args")) == list(inspect.signature(method).parameters)


@every_method
def test_the_bound_is_stated_as_it_is_checked(kind: str) -> None:
    stated = sections(METHODS[kind].function)["Bound"]
    bound = traits_of(METHODS[kind].function).bound
    assert stated.startswith(f"{bound}, else TooFewClientsError" if bound else "None")


@every_method
def test_a_scenarios_defaults_are_those_of_the_function(kind: str) -> None:
    spec = METHODS[kind]
    for name, parameter in inspect.signature(spec.function).parameters.items():
        if name in spec.model_fields and parameter.default is not parameter.empty:
            assert spec.model_fields[name].default == parameter.default
