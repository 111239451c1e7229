"""What figures say stays inside them, however long names are."""

import pandas as pd
import pytest

from fl_testbed.report.columns import WORST_GROUP
from fl_testbed.report.figures.heat_map import heat_map
from fl_testbed.report.figures.style import house_style, in_lines, legend_of_panels, panels

LONG = "Female, aged 20 to 29 years, income above the median of the state (minority)"


@pytest.mark.parametrize(
    ("label", "lines"),
    [
        ("mean", ["mean"]),
        ("mean,attack=mimic,lr=0.1", ["mean,", "attack=mimic,", "lr=0.1"]),
        ("a_long_name.x=0.0001", ["a_long_name.x=", "0.0001"]),
        ("a" * 20, ["a" * 14, "a" * 6]),
    ],
)
def test_a_label_breaks_where_its_words_end(label: str, lines: list[str]) -> None:
    assert in_lines(label, 14).split("\n") == lines


@pytest.mark.parametrize("names", [["honest majority", "honest minority", "poisoned"], [LONG] * 3])
def test_a_legend_is_no_wider_than_its_figure(names: list[str]) -> None:
    with house_style():
        figure, [axes] = panels(["one variant"])
        for number, name in enumerate(names):
            axes.plot([0, 1], label=f"{name} {number}")
        legend_of_panels(figure, [axes], columns=4)
        figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent().x0 >= 0
    assert axes.get_window_extent().height > 60  # and leaves the panel its room


def test_long_names_leave_a_heat_map_its_cells() -> None:
    names = ["none", "an_attack_of_ones_own_that_has_a_very_long_name"]
    cells = pd.DataFrame([{"rule": rule, "attack": attack} for rule in names for attack in names])
    cells[WORST_GROUP.key] = 0.5
    figure = heat_map(cells, "rule", "attack")
    figure.draw_without_rendering()
    panel = figure.axes[0].get_window_extent()
    assert panel.height > 0.3 * figure.dpi * len(names)
    assert panel.width > 0.5 * figure.dpi * len(names)
