"""Methods of one's own meet the federations of the pages, and stand beside what was found there."""

from pathlib import Path

import pytest

from experiments.oil_and_water_federated import runs, yours
from fl_testbed.scenario import load_scenarios


def test_they_meet_what_all_others_met(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("variants: {krum: {strategy.aggregation: {kind: krum, n_malicious: 4}}}\n")
    for file in yours.written(own, ["adult", "faces"], tmp_path / "out"):
        theirs = load_scenarios(runs.HERE / "defences" / file.name, asked=["krum"])
        mine = [s.model_copy(update={"name": theirs[0].name}) for s in load_scenarios(file)]
        assert [s.to_yaml() for s in mine] == [s.to_yaml() for s in theirs]


@pytest.mark.parametrize(
    "text", ["", "a", "variants:", "rounds: 3", "{variants: {a: {}}, rounds: 3}"]
)
def test_nothing_but_the_method_can_be_ones_own(tmp_path: Path, text: str) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(text)
    with pytest.raises(ValueError, match="needs variants and nothing else"):
        yours.written(own, ["adult"], tmp_path / "out")


@pytest.mark.parametrize("name", ["krum,f=4", "krum,4", "krum.4", "default"])
def test_a_method_keeps_its_name_whatever_that_is(tmp_path: Path, name: str) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(f"variants: {{'{name}': {{rounds: 2}}}}\n")
    (file,) = yours.written(own, ["adult"], tmp_path / "out")
    placed = dict.fromkeys(runs.placed(scenario.variant) for scenario in load_scenarios(file))
    assert [*placed] == [(name, point) for point in yours.ATTACKS]


def test_a_method_of_the_pages_gets_its_own_row_again() -> None:
    others = yours.known().query("federation == 'fashion_mnist'")
    own = others[others["method"].isin(["Krum", "JTT told 2, Multi-Krum"])]
    heading, *rows = yours.beside_others(own.assign(variant=own["method"]), others)
    cells = {row[0]: row[1:] for row in rows}
    assert cells["→ JTT told 2, Multi-Krum"] == cells["JTT told 2, Multi-Krum"]
    # It lacks nothing but where nobody attacks: its worst group is 62.6, the ideal lift's 70.1.
    assert cells["JTT told 2, Multi-Krum"][heading[1:].index("short")] == "3"
    assert [row[0] for row in rows[2:4]] == ["mean (no defence)", "JTT, ideal †"]
    shortest = [int(row[-1]) for row in rows[4:]]
    assert shortest == sorted(shortest)
    assert len(yours.figure(own.assign(variant=own["method"]), others).axes) == 1
