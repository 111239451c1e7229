import csv
import errno
import io
import itertools
import json
import math
import re
from pathlib import Path
from shutil import copytree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from rich.console import Console
from run_folders import write_plan, write_run

from clients.shard import Role
from fl_testbed.report.columns import (
    ACCURACY,
    ATTACK_SUCCESS,
    HEARD,
    HIGHEST_SUCCESS,
    SECTIONS,
    WORST_GROUP,
    Column,
    UnknownColumnError,
    columns_named,
)
from fl_testbed.report.comparison import Comparison, Row, UnknownVariantError, compare
from fl_testbed.report.figures.group_curves import group_curves
from fl_testbed.report.figures.heard_map import heard_map
from fl_testbed.report.figures.style import save, write_whole
from fl_testbed.report.figures.suppression_bars import suppression_bars
from fl_testbed.report.figures.tension import tension_plane
from fl_testbed.report.figures.weights_over_rounds import weights_over_rounds
from fl_testbed.report.formats import comma_separated, grids, latex, markdown, terminal
from fl_testbed.report.gallery import factors, pictures
from fl_testbed.report.results import Status, find_runs, finished_runs
from fl_testbed.report.statistics import Estimate
from fl_testbed.scenario import ScenarioError, load_scenarios

QUICKSTART = Path(__file__).parents[3] / "configs" / "quickstart.yaml"


def figures(accuracy: float, worst: float | None = 0.5, rate: float | None = 0.1) -> dict:
    values = (accuracy, worst, rate)
    return dict(zip((ACCURACY.key, WORST_GROUP.key, ATTACK_SUCCESS.key), values, strict=True))


def row_of(comparison: Comparison, label: str) -> Row:
    return next(row for row in comparison.rows if row.label == label)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two seeds of ``mean``; ``krum`` has one done, one failed, one begun and one not begun."""
    sweep = tmp_path / "tension"
    write_run(sweep, "mean", 0, figures(0.9, 0.8, 0.5))
    write_run(sweep, "mean", 1, figures(0.7, 0.6, 0.5))
    write_run(sweep, "krum", 0, figures(0.6, 0.2, 0.0))
    failed = write_run(sweep, "krum", 1)
    (failed / "failure.json").write_text(json.dumps({"reason": "out of & memory"}))
    write_run(sweep, "krum", 2)
    write_plan(sweep, ("mean", 0), ("mean", 1), *(("krum", seed) for seed in range(4)))
    return sweep


def test_every_planned_run_is_there_in_the_plans_order(sweep: Path) -> None:
    runs = find_runs([sweep])
    assert [(run.variant, run.seed) for run in runs][:3] == [("mean", 0), ("mean", 1), ("krum", 0)]
    assert [run.status for run in runs[2:]] == [
        Status.DONE,
        Status.FAILED,
        Status.UNFINISHED,
        Status.WAITING,
    ]


def test_a_run_that_failed_before_it_began_is_found_by_its_folder_too(sweep: Path) -> None:
    failed = sweep / "krum" / "seed-1"
    (failed / "scenario.yaml").unlink()
    assert find_runs([failed]) == [run for run in find_runs([sweep]) if run.folder == failed]
    assert find_runs([failed])[0].status is Status.FAILED


def test_done_runs_come_in_the_order_of_the_scenarios_each_with_its_own(tmp_path: Path) -> None:
    for variant in ("mean", "multi_krum", "of_no_scenario"):
        write_run(tmp_path / "quickstart", variant, 0, figures(0.5))
    write_run(tmp_path / "quickstart", "jtt", 0)  # unfinished
    scenarios = load_scenarios(QUICKSTART)[::-1]
    pairs = list(finished_runs(scenarios, tmp_path))
    assert [run.variant for _, run in pairs] == ["multi_krum", "mean"]
    assert all(scenario.variant == run.variant for scenario, run in pairs)


def test_what_one_machine_planned_and_another_ran_is_one_run(tmp_path: Path) -> None:
    for machine, seed in (("a", 0), ("b", 1)):
        sweep = tmp_path / machine / "tension"
        write_run(sweep, "mean", seed, figures(0.9))
        write_plan(sweep, *(("mean", planned) for planned in range(3)))
    found = [(run.seed, run.status) for run in find_runs([tmp_path])]
    assert sorted(found) == [(0, Status.DONE), (1, Status.DONE), (2, Status.WAITING)]


def test_runs_that_no_plan_has_come_after_those_planned(sweep: Path) -> None:
    write_run(sweep, "a", 0, figures(0.5))
    assert find_runs([sweep])[-1].variant == "a"
    assert len(find_runs([sweep])) == 7


def test_without_a_plan_runs_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for variant in ("krum-10", "mean-2", "krum-9", "krum"):
        write_run(tmp_path / "sweep", variant, 0, figures(0.5))
    found = [run.variant for run in find_runs([tmp_path])]
    assert found == ["krum", "krum-9", "krum-10", "mean-2"]


def test_runs_are_found_beside_the_scenario_that_they_were_made_of(sweep: Path) -> None:
    (sweep.parent / "scenario.yaml").write_text("name: to be run\n")
    assert find_runs([sweep.parent]) == find_runs([sweep])


def test_a_run_that_is_named_twice_counts_once(sweep: Path) -> None:
    runs = find_runs([sweep, sweep / "mean", sweep / "mean" / "seed-0"])
    assert len(runs) == len(find_runs([sweep]))


@pytest.mark.parametrize("content", ['{"runs": [["mean"]]}', "{"])
def test_for_a_damaged_plan_nobody_is_told_to_remove_the_sweep(sweep: Path, content: str) -> None:
    (sweep / "sweep.json").write_text(content)
    with pytest.raises(ScenarioError, match=r"sweep\.json: is not .*: remove the file, then run"):
        find_runs([sweep])


def test_a_copy_of_a_run_is_no_second_seed(sweep: Path) -> None:
    copytree(sweep / "mean" / "seed-0", sweep.parent / "copy" / "mean" / "seed-0")
    runs = find_runs([sweep, sweep.parent / "copy"])
    with pytest.raises(
        ScenarioError, match=r"copy/mean/seed-0: holds mean with seed 0, as .*leave"
    ):
        compare(runs)


def test_seeds_that_differ_in_more_than_the_seed_are_named(tmp_path: Path) -> None:
    for seed, rounds in enumerate((30, 40, 40)):
        folder = write_run(tmp_path / "sweep", "mean", seed, figures(0.5))
        (folder / "scenario.yaml").write_text(f"seed: {seed}\nrounds: {rounds}\n")
        notes = grids(compare(find_runs([tmp_path])))[-1].notes
        assert ("runs of one variant differ in more than the seed: mean in rounds" in notes) == (
            seed > 0
        )


def test_failed_runs_are_shown_and_leave_the_means_alone(sweep: Path) -> None:
    comparison = compare(find_runs([sweep]))
    assert row_of(comparison, "krum").estimates[ACCURACY.key].n == 1
    first = grids(comparison)[0]
    assert first.cells[1][0].text == "1 of 4, 1 failed, 1 unfinished"
    assert first.cells[1][1].text == "60.0"  # one seed: no interval
    assert first.cells[0][1].text == "80.0 ± 127.1"  # 10 · √2 · 12.706 / √2
    assert "failed: krum: seed 1: out of & memory" in grids(comparison)[-1].notes


def test_seeds_that_failed_for_the_same_reason_have_one_line(sweep: Path) -> None:
    reason = (sweep / "krum" / "seed-1" / "failure.json").read_text()
    (sweep / "krum" / "seed-2" / "failure.json").write_text(reason)
    assert compare(find_runs([sweep])).failed == ["krum: seeds 1, 2: out of & memory"]


def test_rounds_that_moved_nothing_are_told_below_the_table(tmp_path: Path) -> None:
    write_run(tmp_path / "one", "mean", 0, figures(0.5), rounds=40, skipped_rounds=0)
    for seed, skipped in ((0, 40), (1, 3)):
        write_run(tmp_path / "one", "krum", seed, figures(0.1), rounds=40, skipped_rounds=skipped)
    notes = grids(compare(find_runs([tmp_path])))[-1].notes
    assert [note for note in notes if "unchanged" in note] == [
        "krum: 43 of 80 rounds left the model unchanged, rounds.csv says why"
    ]


def test_a_model_that_never_moved_is_best_in_nothing(tmp_path: Path) -> None:
    for name, accuracy, skipped in (("mean", 0.5, 0), ("median", 0.6, 1), ("krum", 0.9, 40)):
        write_run(tmp_path / "one", name, 0, figures(accuracy), rounds=40, skipped_rounds=skipped)
    comparison = compare(find_runs([tmp_path]))
    assert comparison.best[ACCURACY.key] == ["median"]
    assert not row_of(comparison, "krum").is_pareto


def test_a_model_that_diverged_is_marked_and_best_in_nothing(tmp_path: Path) -> None:
    for name, rate, losses in (("mean", 0.0, (1.0, None)), ("median", 0.1, (1.0, 2.0))):
        for seed, loss in enumerate(losses):
            write_run(tmp_path / "one", name, seed, figures(0.5, 0.5, rate) | {"final.loss": loss})
    write_run(tmp_path / "one", "krum", 0, figures(0.5, 0.5, 0.2))  # which says nothing of a loss
    untested = dict.fromkeys((*figures(0.0), "final.loss"))  # it began again at the end
    write_run(tmp_path / "one", "krum", 1, untested)
    comparison = compare(find_runs([tmp_path]))
    assert comparison.best[ATTACK_SUCCESS.key] == ["median"]
    table = grids(comparison)[0]
    assert table.labels == ["krum", "mean ×", "median ◆"]
    note = (
        "× diverged (the model's loss is not finite), not in the running for best: mean in 1 of 2"
    )
    assert any(text.startswith(note) for text in table.notes)
    assert r"mean $^\times$" in latex(comparison)


def test_a_figure_that_a_run_could_not_have_is_no_zero(tmp_path: Path) -> None:
    write_run(tmp_path / "one", "mean", 0, figures(0.5, rate=None))
    write_run(tmp_path / "one", "mean", 1, figures(0.7, rate=0.4))
    (row,) = compare(find_runs([tmp_path])).rows
    assert row.estimates[ATTACK_SUCCESS.key][::2] == (0.4, 1)
    assert row.estimates[ACCURACY.key].n == 2


def test_a_variant_is_in_a_table_where_it_has_any_of_its_figures(tmp_path: Path) -> None:
    majority, minority = (
        f"suppression.honest_{who}.weight_ratio" for who in ("majority", "minority")
    )
    plain = figures(0.5, rate=None)
    write_run(tmp_path / "one", "both", 0, {**plain, majority: 1.1, minority: 0.4})
    write_run(tmp_path / "one", "majority", 0, {**plain, majority: 1.0, minority: None})
    write_run(tmp_path / "one", "neither", 0, plain)
    model, heard = grids(compare(find_runs([tmp_path])))
    assert (len(model.labels), heard.labels) == (3, ["both", "majority"])


def test_a_sweep_of_which_nothing_has_finished_shows_its_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "young", "mean", 0)
    comparison = compare(find_runs([tmp_path]))
    assert grids(comparison)[0].cells[0][0].text == "0 of 1, 1 unfinished"
    assert "0 of 1" in markdown(comparison)


def test_differences_are_taken_seed_by_seed(tmp_path: Path) -> None:
    sweep = tmp_path / "pairs"
    for seed, accuracy in enumerate((0.5, 0.7, 0.9)):
        write_run(sweep, "mean", seed, figures(accuracy))
    for seed, accuracy in ((1, 0.8), (2, 1.0), (7, 0.0)):  # seed 7 has no partner
        write_run(sweep, "other", seed, figures(accuracy))
    comparison = compare(find_runs([sweep]), "mean")
    assert row_of(comparison, "other").differences[ACCURACY.key] == pytest.approx((0.1, 0, 2))
    assert not row_of(comparison, "mean").differences
    n_pairs, text = grids(comparison)[1].cells[0][:2]
    assert n_pairs.text == "2"
    assert text.text.startswith("+10.0 ± 0.0")
    assert text.is_marked


@pytest.mark.parametrize(
    ("changes", "is_marked"),
    [
        ((-0.2, -0.2), True),
        ((0.0, 0.0), False),
        ((2e-7, 2e-7), False),  # a weight in float32, its last bit
        ((-0.3, 0.1), False),
        ((0.2,), False),
    ],
)
def test_a_difference_is_marked_where_its_interval_leaves_out_0(
    changes: tuple[float, ...], is_marked: bool, tmp_path: Path
) -> None:
    for seed, change in enumerate(changes):
        write_run(tmp_path / "pairs", "mean", seed, figures(0.5))
        write_run(tmp_path / "pairs", "other", seed, figures(0.5 + change))
    table = grids(compare(find_runs([tmp_path]), "mean"))[1]
    assert table.cells[0][1].is_marked is is_marked


def test_a_cell_says_of_how_many_seeds_it_is_where_some_have_no_such_figure(
    tmp_path: Path,
) -> None:
    for seed, rate in enumerate((None, 0.25)):
        write_run(tmp_path / "some", "now_and_then", seed, figures(0.5, rate=rate))
        write_run(tmp_path / "some", "never", seed, figures(0.5, rate=None))
    (table,) = grids(compare(find_runs([tmp_path])))
    assert [row[3].text for row in table.cells] == ["–", "25.0 (n=1)"]


def test_a_difference_says_of_how_many_pairs_it_is_where_some_have_no_such_figure(
    tmp_path: Path,
) -> None:
    for seed, rate in enumerate((None, 0.25)):
        write_run(tmp_path / "some", "mean", seed, figures(0.5, rate=0.5))
        write_run(tmp_path / "some", "other", seed, figures(0.5, rate=rate))
    table = grids(compare(find_runs([tmp_path]), "mean"))[1]
    n_pairs, *_, change = table.cells[0]
    assert (n_pairs.text, change.text) == ("2", "-25.0 (n=1)")


def test_an_unknown_baseline_names_the_nearest(sweep: Path) -> None:
    with pytest.raises(UnknownVariantError, match="did you mean 'mean'"):
        compare(find_runs([sweep]), "maen")


def test_oracles_and_runs_without_attack_are_never_best_nor_on_the_front(tmp_path: Path) -> None:
    sweep = tmp_path / "marks"
    write_run(sweep, "ideal", 0, figures(1.0, 1.0, 0.0), oracle=True, n_poisoned=2)
    write_run(sweep, "calm", 0, figures(0.9, 0.9, 0.0), oracle=False, n_poisoned=0)
    write_run(sweep, "fair", 0, figures(0.8, 0.8, 0.9), oracle=False, n_poisoned=2)
    write_run(sweep, "safe", 0, figures(0.7, 0.1, 0.1), oracle=False, n_poisoned=2)
    write_run(sweep, "bad", 0, figures(0.7, 0.1, 0.9), oracle=False, n_poisoned=2)
    comparison = compare(find_runs([sweep]))
    assert [row.label for row in comparison.rows if row.is_pareto] == ["fair", "safe"]
    assert comparison.best[WORST_GROUP.key] == ["fair"]
    assert comparison.best[ATTACK_SUCCESS.key] == ["safe"]
    write_run(sweep, "calmer", 0, figures(0.9, 0.8, 0.0), oracle=False, n_poisoned=0)
    calm = compare(find_runs([sweep / "calm", sweep / "calmer"]))
    assert not any(row.is_unattacked for row in calm.rows)  # nobody attacks any of them
    assert calm.best[WORST_GROUP.key] == ["calm"]
    assert not any(row.is_pareto for row in calm.rows)
    assert tension_plane(calm) is None


def test_of_two_one_may_be_on_the_front_and_one_alone_is_not_marked(tmp_path: Path) -> None:
    write_run(tmp_path / "two", "good", 0, figures(0.5, 0.9, 0.0))
    write_run(tmp_path / "two", "not_yet", 0)
    assert not any(row.is_pareto for row in compare(find_runs([tmp_path])).rows)
    write_run(tmp_path / "two", "bad", 0, figures(0.5, 0.1, 0.9))
    comparison = compare(find_runs([tmp_path]))
    assert {row.label: row.is_pareto for row in comparison.rows} == {
        "good": True,
        "not_yet": False,
        "bad": False,
    }


def test_the_best_is_highest_lowest_or_nearest_0_as_the_column_has_it(tmp_path: Path) -> None:
    bias, variance = "suppression.filter_bias", "final.client_accuracy_variance"
    write_run(tmp_path / "s", "one", 0, {bias: -0.5, variance: 0.04, ACCURACY.key: 0.5})
    write_run(tmp_path / "s", "two", 0, {bias: 0.1, variance: 0.01, ACCURACY.key: 0.4})
    comparison = compare(find_runs([tmp_path]))
    best = {bias: ["two"], variance: ["two"], ACCURACY.key: ["one"]}
    assert {key: comparison.best[key] for key in best} == best
    texts = [[cell.text for cell in cells[1:]] for cells in grids(comparison)[0].cells]
    assert texts == [["50.0", "400"], ["40.0", "100"]]  # percent, and percent squared


@pytest.fixture
def attacked(tmp_path: Path) -> Path:
    """Two rules against a weak and a strong attack, rule by rule as a sweep runs them."""
    sweep = tmp_path / "attacked"
    for variant, weak, strong in (
        ("mean", (0.9, 0.1), (0.5, 0.9)),
        ("krum", (0.2, 0.0), (0.1, 0.2)),
    ):
        for seed in (0, 1):
            write_run(sweep, f"{variant},attack=weak", seed, figures(weak[0] + seed / 50, *weak))
            write_run(sweep, f"{variant},attack=strong", seed, figures(strong[0], *strong))
    variants = [
        f"{variant},attack={attack}"
        for variant in ("mean", "krum")
        for attack in ("weak", "strong")
    ]
    write_plan(sweep, *((variant, seed) for variant in variants for seed in (0, 1)))
    return sweep


def test_rules_are_compared_at_each_swept_value_by_itself(attacked: Path) -> None:
    comparison = compare(find_runs([attacked]))
    labels = ["mean,attack=weak", "krum,attack=weak", "mean,attack=strong", "krum,attack=strong"]
    assert [row.label for row in comparison.rows] == labels
    assert comparison.best[ACCURACY.key] == [labels[0], labels[2]]
    assert comparison.best[ATTACK_SUCCESS.key] == [labels[1], labels[3]]
    assert all(row.is_pareto for row in comparison.rows)
    (table,) = grids(comparison)
    assert [ends for *_, ends in table.rows] == [False, True, False, False]
    assert "* best of the column in each block" in table.notes
    assert any("no other in its block is as good" in note for note in table.notes)
    assert latex(comparison).count(r"\midrule") == 2  # one below the heading
    plane = tension_plane(comparison)
    assert plane is not None
    weak, strong, key = plane.axes
    assert (weak.get_title("left"), strong.get_title("left")) == ("attack=weak", "attack=strong")
    for axes in (weak, strong):
        (front,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
        assert len(front.get_xdata()) == 2
    assert [text.get_text() for text in key.texts][:4] == ["1", "mean", "2", "krum"]


def test_labels_of_points_in_a_pile_do_not_cover_each_other(tmp_path: Path) -> None:
    for attack in ("weak", "strong"):
        for name, worst, rate in (
            ("a", 0.17, 0),
            ("b", 0.28, 0.07),
            ("c", 0.26, 0),
            ("d", 0.04, 0),
        ):
            write_run(tmp_path / "pile", f"{name},attack={attack}", 0, figures(0.5, worst, rate))
    plane = tension_plane(compare(find_runs([tmp_path])))
    assert plane is not None
    FigureCanvasAgg(plane).draw()  # lays it out
    boxes = [text.get_window_extent() for text in plane.axes[0].texts]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_of_many_points_in_one_place_the_label_fits_into_the_plane(tmp_path: Path) -> None:
    for number in range(1, 31):
        worst = 0.8 if number % 5 == 4 else 0.2
        write_run(tmp_path / "pile", f"v{number:02}", 0, figures(0.5, worst, 0.3))
    plane = tension_plane(compare(find_runs([tmp_path])))
    assert plane is not None
    FigureCanvasAgg(plane).draw()
    axes, labels = plane.axes[0], plane.axes[0].texts
    assert {text.get_text() for text in labels} == {"1–3, 5–8, 10–13, 15–18, …", "4, 9, 14, 19, …"}
    outer = axes.get_window_extent()
    assert all(
        outer.contains(*corner) for t in labels for corner in t.get_window_extent().corners()
    )


@pytest.mark.parametrize("order", [("1", "never"), ("never", "1")])
def test_the_key_of_several_planes_does_not_depend_on_their_order(
    order: tuple[str, str], tmp_path: Path
) -> None:
    for variant, n_poisoned in (("mean", 2), ("krum", 2), ("mean_no_attack", 0)):
        for first in order:
            n = 0 if first == "never" else n_poisoned
            write_run(tmp_path / "swept", f"{variant},first={first}", 0, figures(0.5), n_poisoned=n)
    plan = [(f"{v},first={at}", 0) for v in ("mean", "krum", "mean_no_attack") for at in order]
    write_plan(tmp_path / "swept", *plan)
    plane = tension_plane(compare(find_runs([tmp_path])))
    assert plane is not None
    *planes, key = plane.axes
    titles = {"1": "first=1", "never": "first=never ‡"}
    assert [axes.get_title("left") for axes in planes] == [titles[first] for first in order]
    texts = [text.get_text() for text in key.texts if text.get_text()]
    assert texts[:6] == ["1", "mean", "2", "krum", "3", "mean_no_attack ‡"]
    assert texts[6:] == ["★ fair and safe", "◆ Pareto-optimal", "‡ nobody attacks"]


def test_a_baseline_is_taken_under_each_swept_lift(tmp_path: Path) -> None:
    for name, lift, accuracy in itertools.product(("mean", "krum"), ("none", "jtt"), (0.5, 0.7)):
        shown = figures(accuracy + 0.1 * (name == "krum") * (lift == "jtt"))
        write_run(tmp_path / "a", f"{name},reweighting={lift}", int(10 * accuracy), shown)
    rows = compare(find_runs([tmp_path]), "mean").rows
    changes = {row.method: row.differences[ACCURACY.key].mean for row in rows if row.differences}
    assert changes == pytest.approx({"krum,reweighting=none": 0, "krum,reweighting=jtt": 0.1})


def test_a_baseline_is_taken_at_each_swept_value(attacked: Path) -> None:
    comparison = compare(find_runs([attacked]), "mean")
    changes = {
        row.label: row.differences[ATTACK_SUCCESS.key].mean
        for row in comparison.rows
        if row.differences
    }
    assert changes == pytest.approx({"krum,attack=weak": -0.1, "krum,attack=strong": -0.7})
    one = compare(find_runs([attacked]), "mean,attack=weak")
    assert sum(bool(row.differences) for row in one.rows) == 3
    with pytest.raises(UnknownVariantError, match="did you mean 'mean'"):
        compare(find_runs([attacked]), "means")


def test_a_swept_rule_is_what_is_compared_and_no_value_that_it_meets(tmp_path: Path) -> None:
    for attack, rate in (("weak", 0.1), ("strong", 0.9)):
        for rule in ("mean", "krum"):
            variant = f"attack={attack},aggregation={rule}"
            write_run(
                tmp_path / "swept", variant, 0, figures(0.5, rate=rate - (rule == "krum") / 20)
            )
    comparison = compare(find_runs([tmp_path]), "aggregation=mean")
    assert [row.point for row in comparison.rows] == ["attack=strong"] * 2 + ["attack=weak"] * 2
    assert comparison.best[ATTACK_SUCCESS.key] == [
        "attack=strong,aggregation=krum",
        "attack=weak,aggregation=krum",
    ]
    assert sum(bool(row.differences) for row in comparison.rows) == 2


def test_values_that_only_one_rule_meets_are_compared_with_each_other(tmp_path: Path) -> None:
    for attack, rate in (("weak", 0.1), ("strong", 0.9)):
        write_run(tmp_path / "swept", f"attack={attack}", 0, figures(0.5, rate=rate))
    comparison = compare(find_runs([tmp_path]))
    assert not comparison.has_points
    assert comparison.best[ATTACK_SUCCESS.key] == ["attack=weak"]


def test_what_is_a_role_s_is_called_by_its_name() -> None:
    for column in (column for columns in SECTIONS.values() for column in columns):
        for role in Role:
            if role.value in column.key.split("."):
                assert role.value.removeprefix("honest_") in column.title


def test_where_all_are_the_same_none_is_best(tmp_path: Path) -> None:
    for variant in ("one", "two"):
        write_run(tmp_path / "tie", variant, 0, figures(0.5))
    assert compare(find_runs([tmp_path])).best[ACCURACY.key] == []


def test_several_sweeps_stand_side_by_side(tmp_path: Path) -> None:
    write_run(tmp_path / "one", "mean", 0, figures(0.5))
    write_run(tmp_path / "two", "mean", 0, figures(0.6))
    rows = compare(find_runs([tmp_path])).rows
    assert [row.label for row in rows] == ["one/mean", "two/mean"]


def test_sweeps_of_the_same_methods_are_compared_each_by_itself(tmp_path: Path) -> None:
    for name, rate in (("easy", 0.1), ("hard", 0.9)):
        write_run(tmp_path / name, "mean", 0, figures(0.5, rate=rate))
        write_run(tmp_path / name, "krum", 0, figures(0.5, rate=rate - 0.05))
    comparison = compare(find_runs([tmp_path]), "mean")
    assert comparison.best[ATTACK_SUCCESS.key] == ["easy/krum", "hard/krum"]
    assert [row.point for row in comparison.rows] == ["name=easy"] * 2 + ["name=hard"] * 2
    changes = [row.differences.get(ATTACK_SUCCESS.key) for row in comparison.rows]
    assert [change and change.mean for change in changes] == pytest.approx([-0.05, None] * 2)


def test_sweeps_of_one_method_each_are_what_is_compared(tmp_path: Path) -> None:
    for name, rate in (("mean", 0.9), ("krum", 0.1)):
        for attack in ("none", "mimic"):
            write_run(tmp_path / name, f"attack={attack}", 0, figures(0.5, rate=rate))
    comparison = compare(find_runs([tmp_path]))
    assert comparison.best[ATTACK_SUCCESS.key] == ["krum/attack=mimic", "krum/attack=none"]
    assert {row.method for row in comparison.rows} == {"krum", "mean"}


@pytest.mark.parametrize(
    ("key", "where", "points"),
    [
        ("decay", "strategy: {aggregation: {args: {decay: 0.5}}}", {""}),
        ("lr", "training: {lr: 0.5}", {"", "lr=0.5", "lr=0.9"}),
    ],
)
def test_a_method_s_own_swept_constants_are_compared_with_methods_that_have_none(
    tmp_path: Path, key: str, where: str, points: set[str]
) -> None:
    for variant in ("mean", "krum", f"mine,{key}=0.5", f"mine,{key}=0.9"):
        folder = write_run(tmp_path / "swept", variant, 0, figures(0.5))
        (folder / "scenario.yaml").write_text(f"name: x\n{where}\n")
    rows = compare(find_runs([tmp_path])).rows
    assert {row.point for row in rows} == points


def test_figures_of_pooled_data_are_said_to_be_the_final_model_s_without_a_twin_too(
    tmp_path: Path,
) -> None:
    both = figures(0.5) | {"final.worst_group_accuracy_with_poisoned": 0.1}
    write_run(tmp_path / "pooled", "erm", 0, both)
    (table,) = grids(compare(find_runs([tmp_path])))
    assert any(
        "on pooled data, figures are those of the final model" in note for note in table.notes
    )


def test_another_kind_of_run_brings_columns_of_its_own(tmp_path: Path) -> None:
    write_run(tmp_path / "pooled", "jtt", 0, {"flags.precision": 0.25})
    own = {"flags": (Column("flags.precision", "precision", "%", "highest"), ACCURACY)}
    comparison = compare(find_runs([tmp_path]), sections=own)
    assert [column.title for column in comparison.columns] == ["precision"]
    assert grids(comparison)[0].cells[0][1].text == "25.0"


def test_columns_may_be_chosen_by_their_headings(sweep: Path) -> None:
    runs = find_runs([sweep])
    sections = columns_named(["ASR", WORST_GROUP.key], [run.figures for run in runs])
    (table,) = grids(compare(runs, sections=sections))
    assert table.headings == ["seeds", "ASR %", "worst group %"]
    for name, hint in (("asr", r", did you mean 'ASR'\?"), ("f1", "; known columns: accuracy; w")):
        with pytest.raises(UnknownColumnError, match=f"there is no column '{name}'{hint}"):
            columns_named([name], [])
    assert columns_named(["lift minority"], [])["chosen figures"][0].is_told_by(
        {"lifting.ratio.honest_minority": 1.0}
    )


def test_an_attack_that_the_model_lost_again_has_a_column(tmp_path: Path) -> None:
    keys = (ATTACK_SUCCESS.key, HIGHEST_SUCCESS.key)
    for seed, values in enumerate([(0.0, 0.49), (0.3, 0.79)]):
        write_run(tmp_path, "mean", seed, dict(zip(keys, values, strict=True)))
    assert "highest ASR" not in markdown(compare(find_runs([tmp_path])))
    write_run(tmp_path, "mean", 2, dict(zip(keys, (0.0, 0.51), strict=True)))
    assert "highest ASR %" in markdown(compare(find_runs([tmp_path])))


def test_more_than_two_groups_have_a_table_of_their_weights(tmp_path: Path) -> None:
    for n, name in ((2, "two"), (3, "three")):
        weights = {f"group_weight_ratio.{group}": 0.5 for group in "abc"[:n]}
        weights["final.minority_accuracy"] = 0.5  # is not about weights
        write_run(tmp_path / name, "mean", 0, figures(0.5) | weights)
    assert "by group" not in markdown(compare(find_runs([tmp_path / "two"])))
    found = compare(find_runs([tmp_path / "three"]), sections=HEARD)
    assert [c.title for c in found.sections["who was heard by group"]] == ["a", "b", "c"]
    page = markdown(found)
    assert "weight over fair share, of honest clients, each counted by its share of the" in page
    assert "on pooled data, of the group's honest examples" in page  # which have no clients


def test_more_than_two_groups_have_a_table_of_their_own(tmp_path: Path) -> None:
    groups = {"group_accuracy.Female, >50K": 0.2, "group_accuracy.Female, <=50K": 0.9}
    write_run(tmp_path / "two", "mean", 0, figures(0.5) | groups)
    write_run(tmp_path / "three", "mean", 0, figures(0.5) | groups | {"group_accuracy.Male": 0.4})
    titles = [grid.title for grid in grids(compare(find_runs([tmp_path / "two"])))]
    assert titles == ["two: how well the model does"]
    comparison = compare(find_runs([tmp_path / "three"]))
    by_group = grids(comparison)[1]
    assert by_group.headings == ["Female, >50K %", "Female, <=50K %", "Male %"]
    assert [cell.text for cell in by_group.cells[0]] == ["20.0", "90.0", "40.0"]
    assert r"$>$50K \% & $<$=50K \% & Male \%" in latex(comparison)  # text has ¿ and ¡ there


def test_of_more_than_two_groups_minorities_and_others_are_shown_together_too(
    tmp_path: Path,
) -> None:
    groups = {f"group_accuracy.{name}": 0.2 for name in "abc"} | {"final.minority_accuracy": 0.3}
    write_run(tmp_path / "sweep", "mean", 0, figures(0.5) | groups)
    write_run(tmp_path / "sweep", "krum", 0, figures(0.5) | groups | {"group_accuracy.a": 0.1})
    by_group = grids(compare(find_runs([tmp_path])))[1]
    assert by_group.headings == ["all minorities %", "a %", "b %", "c %"]
    assert [cell.is_marked for cell in by_group.cells[1]] == [False, True, False, False]


def test_who_is_asked_less_than_others_is_shown_where_it_is_more_than_a_little(
    tmp_path: Path,
) -> None:
    asked = {f"suppression.{role.value}.participation": 1.2 for role in Role}
    write_run(tmp_path / "sweep", "mean", 0, figures(0.5) | asked)
    assert "asked" not in markdown(compare(find_runs([tmp_path])))
    never = asked | {"suppression.honest_minority.participation": 0.0}
    write_run(tmp_path / "sweep", "picky", 0, figures(0.5) | never)
    heard = grids(compare(find_runs([tmp_path])))[1]
    assert heard.headings == ["asked minority"]
    assert [cells[0].text for cells in heard.cells] == ["1.20", "0.00"]
    assert heard.notes[0].startswith("asked: ")


def test_a_replay_is_not_among_models_but_a_run_without_figures_is(tmp_path: Path) -> None:
    write_run(tmp_path / "one", "mean", 0, figures(0.5))
    write_run(tmp_path / "one", "replay", 0, {"suppression.honest_minority.weight_ratio": 0.5})
    write_run(tmp_path / "one", "empty", 0, {})
    models, heard = grids(compare(find_runs([tmp_path])))
    assert models.labels == ["empty", "mean"]
    assert heard.labels == ["replay"]


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((None, None), "mean of the last 5 evaluations"),
        ((3, 3), "mean of the last 3 evaluations"),
        ((1, 1), "mean of the last evaluation"),
        ((2, None), "mean of the last 2 to 5 evaluations"),
    ],
)
def test_of_how_many_evaluations_figures_are_means_stands_below(
    counts: tuple[int | None, ...], text: str, tmp_path: Path
) -> None:
    for seed, count in enumerate(counts):
        more = {"rounds": 9} | ({} if count is None else {"n_final": count})
        write_run(tmp_path / "sweep", "mean", seed, figures(0.5) | more)
    assert grids(compare(find_runs([tmp_path])))[0].notes[0].endswith(text)


def test_a_separability_of_few_pairs_is_named_below_the_table(tmp_path: Path) -> None:
    key = "suppression.separability"
    for variant, n in (("krum", 29), ("median", 30), ("mean", 0)):
        own = {key: 0.5 if n else None, f"{key}_pairs": n}
        write_run(tmp_path / "sweep", variant, 0, figures(0.5) | own)
    notes = grids(compare(find_runs([tmp_path])))[1].notes
    assert [note for note in notes if "fewer" in note] == [
        "fewer than 30 pairs in some run, so that separability says little: krum"
    ]


def test_a_group_that_is_a_minority_in_all_runs_is_marked_as_one(tmp_path: Path) -> None:
    groups = {f"group_accuracy.{name}": 0.2 for name in "abc"}
    small = {"is_minority.a": False, "is_minority.b": True, "is_minority.c": True}
    write_run(tmp_path / "sweep", "mean", 0, figures(0.5) | groups | small)
    write_run(tmp_path / "sweep", "mean", 1, figures(0.5) | groups)  # as older runs are
    headings = grids(compare(find_runs([tmp_path / "sweep"])))[1].headings
    assert headings == ["a %", "b (minority) %", "c (minority) %"]
    write_run(
        tmp_path / "sweep", "krum", 0, figures(0.5) | groups | small | {"is_minority.b": False}
    )
    headings = grids(compare(find_runs([tmp_path / "sweep"])))[1].headings
    assert headings == ["a %", "b %", "c (minority) %"]
    runs = [run.figures for run in find_runs([tmp_path / "sweep"])]
    assert columns_named(["c"], runs) == columns_named(["c (minority)"], runs)


def test_a_group_that_not_every_run_tests_is_named_below_the_table(tmp_path: Path) -> None:
    groups = {"is_minority.a": False, "is_minority.b": True, "group_accuracy.a": 0.9}
    write_run(tmp_path / "sweep", "mean", 0, figures(0.5) | groups | {"group_accuracy.b": 0.2})
    write_run(tmp_path / "sweep", "mean", 1, figures(0.9) | groups | {"group_accuracy.b": None})
    write_run(tmp_path / "sweep", "krum", 0, figures(0.9))  # of data without such a group
    notes = "\n".join(grids(compare(find_runs([tmp_path / "sweep"])))[0].notes)
    assert "\nb (minority) is tested in 1 of 2 runs: in the others, worst group and" in notes


def test_runs_whose_data_are_not_those_of_the_same_dataset_are_named_below(tmp_path: Path) -> None:
    def run(variant: str, seed: int, fingerprint: str | None) -> None:
        folder = write_run(tmp_path / "sweep", variant, seed, figures(0.5))
        data = {"of": {"kind": "digits", "seed": seed}, "fingerprint": fingerprint}
        (folder / "environment.json").write_text(json.dumps({"data": data} if fingerprint else {}))

    for variant in ("mean", "median"):
        run(variant, 0, "a")
        run(variant, 1, "b")  # which the seed draws
    run("krum", 0, None)  # an earlier version's
    assert compare(find_runs([tmp_path])).on_other_data == []
    run("krum", 1, "c")
    notes = "\n".join(grids(compare(find_runs([tmp_path])))[-1].notes)
    assert "not all are on the same data" in notes
    assert "different from most are krum seed 1 (fingerprints" in notes


def test_variants_with_another_minority_are_no_rivals(tmp_path: Path) -> None:
    accuracies = {"mean": (0.9, 0.6), "krum": (0.7, 0.4)}
    for place, minority in enumerate(("inverted", "blurred")):
        for method, own in accuracies.items():
            groups = {"is_minority.plain": False, f"is_minority.{minority}": True}
            more = groups | {"suppression.separability": 0.4}
            write_run(tmp_path, f"{method}_{minority}", 0, figures(0.8, own[place]) | more)
    write_run(tmp_path, "replayed", 0, {"suppression.separability": 0.5})
    comparison = compare(find_runs([tmp_path]))
    assert comparison.best[WORST_GROUP.key] == ["mean_blurred", "mean_inverted"]
    assert [row.label for row in comparison.rows if row.is_pareto] == [
        "mean_blurred",
        "mean_inverted",
    ]
    assert "the best and the Pareto-optimal are marked among those" in markdown(comparison)
    assert "interval" not in markdown(comparison)  # of one seed each
    same = compare([run for run in find_runs([tmp_path]) if "blurred" not in run.variant])
    assert "are marked among those" not in markdown(same)
    assert same.best["suppression.separability"] == ["replayed"]  # no tests, but a rival


def test_a_narrow_terminal_has_a_table_in_parts_and_cuts_nothing_off(sweep: Path) -> None:
    write_run(sweep, "a_variant_of_a_long_name", 0, figures(0.87654))
    comparison = compare(find_runs([sweep]))
    written = io.StringIO()
    Console(width=40, file=written).print(terminal(comparison, 40))
    table = written.getvalue()
    assert "(continued)" in table
    assert "…" not in table
    rows = [line.split("│")[1:-1] for line in table.splitlines() if line.startswith("│")]
    assert "a_variant_of_a_long_name" in "".join(row[0].strip() for row in rows)
    for grid in grids(comparison):
        words = {word for heading in grid.headings for word in heading.split()}
        texts = {cell.text for cells in grid.cells for cell in cells[1:]}
        assert [text for text in words | texts if text not in table] == []  # none is broken
    Console(width=200, file=(wide := io.StringIO())).print(terminal(comparison, 200))
    assert "(continued)" not in wide.getvalue()
    assert "mean ± 95 % interval over seeds" in wide.getvalue()


def test_a_table_of_very_many_groups_is_left_out_of_a_terminal_alone(tmp_path: Path) -> None:
    groups = {f"group_accuracy.w{i}": 0.2 for i in range(40)}
    write_run(tmp_path / "sweep", "mean", 0, figures(0.5) | groups)
    comparison = compare(find_runs([tmp_path]))
    written = io.StringIO()
    Console(width=100, file=written).print(terminal(comparison, 100))
    assert "by group\n40 columns do not fit here" in written.getvalue()
    assert "w39 %" in markdown(comparison)


def test_lifts_are_shown_where_somebody_is_lifted(tmp_path: Path) -> None:
    lift = "lifting.ratio.honest_minority"
    write_run(tmp_path / "sweep", "mean", 0, {lift: 1 + 2e-9, ACCURACY.key: 0.5})  # 9 digits a term
    assert lift not in [column.key for column in compare(find_runs([tmp_path])).columns]
    write_run(tmp_path / "sweep", "jtt", 0, {lift: 3.0})
    (row, _) = compare(find_runs([tmp_path])).rows
    assert {row.label, *row.estimates} >= {"jtt", lift}


def test_csv_holds_the_numbers_themselves(sweep: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(comma_separated(compare(find_runs([sweep]), "mean")))))
    mean, krum = rows
    assert (krum["variant"], krum["n_done"], krum["n_failed"]) == ("krum", "1", "1")
    assert float(mean["final.accuracy.mean"]) == pytest.approx(0.8)
    assert float(krum["final.accuracy.difference.mean"]) == pytest.approx(-0.3)
    assert krum["final.accuracy.half_width"] == ""
    assert mean["final.accuracy.difference.n"] == "0"


def test_csv_has_a_column_for_each_key_of_the_swept_values(tmp_path: Path) -> None:
    variants = ("mean,attack=none", "a,b,attack=none", "mean,attack=alie,shift=0,1", "krum")
    for variant in variants:
        write_run(tmp_path / "sweep", variant, 0, figures(0.5))
    rows = list(csv.DictReader(io.StringIO(comma_separated(compare(find_runs([tmp_path]))))))
    write_run(tmp_path / "rules", "aggregation=krum,reweighting=jtt", 0, figures(0.5))
    (row,) = csv.DictReader(io.StringIO(comma_separated(compare(find_runs([tmp_path / "rules"])))))
    assert (row["swept.aggregation"], row["swept.reweighting"]) == ("krum", "jtt")
    keys = ("method", "swept.attack", "swept.shift")
    found = {row["variant"]: tuple(row[key] for key in keys) for row in rows}
    assert found == {
        "mean,attack=none": ("mean", "none", ""),
        "a,b,attack=none": ("a,b", "none", ""),
        "mean,attack=alie,shift=0,1": ("mean", "alie", "0,1"),
        "krum": ("krum", "", ""),
    }


def test_a_long_heading_takes_two_rows_in_latex(tmp_path: Path) -> None:
    write_run(tmp_path / "wide", "mean", 0, {"final.worst_group_accuracy": 0.5})
    comparison = compare(find_runs([tmp_path]))
    assert " &  & worst \\\\\nvariant & seeds & group \\% \\\\\n" in latex(comparison)


def test_markdown_and_latex_have_as_many_cells_in_every_row(tmp_path: Path) -> None:
    sweep = tmp_path / "tables"
    write_run(sweep, "a_b|c", 0, figures(0.5))
    write_run(sweep, "50%", 0, figures(0.6, None))
    comparison = compare(find_runs([sweep]))
    lines = [line for line in markdown(comparison).splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {6}
    assert "**60.0**" in markdown(comparison)
    tex = latex(comparison)
    body = [line for line in tex.splitlines() if line.endswith(r" \\")]
    assert {line.replace(r"\&", "").count("&") for line in body} == {4}
    assert r"a\_b$|$c" in tex
    assert r"50\%" in tex
    assert r"\textbf{60.0}" in tex


def test_a_group_may_be_called_what_parts_the_cells_of_a_table(tmp_path: Path) -> None:
    groups = {f"group_accuracy.{name}": 0.2 for name in ("a|b", "c", "d")}
    write_run(tmp_path / "tables", "mean", 0, groups)
    table = [row for row in markdown(compare(find_runs([tmp_path]))).splitlines() if "|" in row]
    assert table[0] == "| variant | seeds | a\\|b % | c % | d % |"
    assert {row.replace("\\|", "").count("|") for row in table} == {6}


def test_a_value_that_rounds_to_nothing_has_no_sign(tmp_path: Path) -> None:
    from fl_testbed.report.formats import value_text

    assert value_text(Estimate(-0.0001, math.nan, 1), ACCURACY, 1, signed=True) == "0.0"
    assert value_text(Estimate(0.123, 0.01, 2), ACCURACY, 2, signed=True) == "+12.3 ± 1.0"


def test_a_heat_map_is_drawn_of_a_grid_and_never_averages_variants(tmp_path: Path) -> None:
    sweep = tmp_path / "grid"

    def drawn(variant: str, rule: str, attack: str) -> bool:
        folder = write_run(sweep, variant, 0, figures(0.5))
        settings = f"{{aggregation: {{kind: {rule}}}}}, attack: {{kind: {attack}}}"
        (folder / "scenario.yaml").write_text(f"{{clients: {{poisoned: 1}}, strategy: {settings}}}")
        runs = find_runs([sweep])
        names = [picture.name for picture in pictures(compare(runs))]
        return "defence_by_attack" in names

    assert not drawn("a", "mean", "mimic")
    assert not drawn("b", "krum", "mimic")
    assert drawn("c", "mean", "sign_flip")  # three of four cells
    assert drawn("d", "krum", "sign_flip")
    assert not drawn("another_f", "krum", "sign_flip")


def test_a_heat_map_of_attacks_sets_lifts_apart(tmp_path: Path) -> None:
    sweep = tmp_path / "grid"
    for lift in ("none", "jtt"):
        for attack in ("mimic", "sign_flip"):
            folder = write_run(sweep, f"{lift}_{attack}", 0, figures(0.5))
            strategy = f"{{aggregation: {{kind: krum}}, reweighting: {{kind: {lift}}}}}"
            (folder / "scenario.yaml").write_text(
                f"{{clients: {{poisoned: 1}}, strategy: {strategy}, attack: {{kind: {attack}}}}}"
            )
    runs = find_runs([sweep])
    (grid,) = (p for p in pictures(compare(runs)) if p.name == "defence_by_attack")
    assert grid.title == "Method × attack"
    rows = [label.get_text() for label in grid.figure.axes[0].get_yticklabels()]
    assert rows == ["krum, jtt", "krum"]


def test_a_heat_map_calls_methods_and_swept_attacks_by_their_names(tmp_path: Path) -> None:
    kinds = {"none": "none", "weak": "my_attack.py:forge", "strong": "my_attack.py:forge"}
    for name in ("cautious", "bold"):
        for attack, kind in kinds.items():
            folder = write_run(tmp_path / "grid", f"{name},attack={attack}", 0, figures(0.5))
            (folder / "scenario.yaml").write_text(
                "{clients: {poisoned: 1}, strategy: {aggregation: {kind: krum}}, "
                f"poison: {{kind: label_flip}}, attack: {{kind: '{kind}'}}}}"
            )
    runs = find_runs([tmp_path])
    (grid,) = (p for p in pictures(compare(runs)) if p.name == "defence_by_attack")
    axes = grid.figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bold", "cautious"]
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert sorted(shown) == ["label_flip", "strong", "weak"]


@pytest.mark.parametrize(
    ("attackers", "attack"),
    [
        ("clients: {poisoned: 0}\nattack: {kind: mimic}", "none"),
        ("attack: {kind: mimic}\npoison: {kind: label_flip}", "mimic"),
        ("attack: {kind: none}\npoison: {kind: label_flip}", "label_flip"),
        ("attack: {kind: mimic}\nschedule: {first: never}", "none"),
        (
            "poison: {kind: label_flip}\nattackers: [{poison: {kind: none}}, {}]",
            "none + label_flip",
        ),
    ],
)
def test_a_heat_map_calls_attackers_by_what_they_do(
    attackers: str, attack: str, tmp_path: Path
) -> None:
    (tmp_path / "scenario.yaml").write_text(
        "clients: {poisoned: 2}\n" * ("clients" not in attackers) + attackers
    )
    assert factors(tmp_path)["attack"] == attack


@pytest.mark.parametrize(
    ("oracle", "defence", "lift"),
    [
        ("{lifting: standard, removing: standard}", "krum", "jtt"),
        ("{lifting: ideal, removing: standard}", "krum", "jtt (ideal)"),
        ("{removing: shielded}", "krum (shielded)", "jtt"),
    ],
)
def test_a_heat_map_sets_a_method_that_an_oracle_corrects_apart(
    oracle: str, defence: str, lift: str, tmp_path: Path
) -> None:
    methods = "aggregation: {kind: krum}, reweighting: {kind: jtt}"
    (tmp_path / "scenario.yaml").write_text(f"strategy: {{{methods}, oracle: {oracle}}}")
    found = factors(tmp_path)
    assert (found["defence"], found["reweighting"]) == (defence, lift)


def test_a_heat_map_names_the_steps_before_a_rule_and_who_is_told(tmp_path: Path) -> None:
    rule = "{kind: krum, n_malicious: oracle}"
    steps = f"pre_aggregation: [{{kind: bucketing}}], aggregation: {rule}"
    (tmp_path / "scenario.yaml").write_text(f"strategy: {{{steps}}}")
    assert factors(tmp_path)["defence"] == "bucketing + krum (oracle)"


def test_a_heat_map_calls_a_flower_strategy_by_its_class(tmp_path: Path) -> None:
    strategy = '{kind: flower, path: "flwr.serverapp.strategy:Krum"}'
    (tmp_path / "scenario.yaml").write_text(f"strategy: {strategy}")
    assert factors(tmp_path)["defence"] == "Krum"


def test_the_plane_has_attack_success_across_and_the_worst_group_up(sweep: Path) -> None:
    plane = tension_plane(compare(find_runs([sweep])))
    assert plane is not None
    axes = plane.axes[0]
    drawn = [dots.get_offsets() for dots in axes.collections if isinstance(dots, PathCollection)]
    points = [tuple(np.asarray(offsets).ravel().tolist()) for offsets in drawn]
    assert points == [(0, 100), pytest.approx((50, 70)), pytest.approx((0, 20))]
    assert axes.get_xlabel().startswith("attack success rate")
    assert axes.get_ylabel().startswith("worst-group accuracy")


@pytest.mark.parametrize("n_rounds", [2, 12, 15])
def test_no_tick_stands_between_two_rounds(n_rounds: int) -> None:
    curves = pd.DataFrame({"plain": np.linspace(0, 1, n_rounds)}, index=range(1, n_rounds + 1))
    panels = group_curves(dict.fromkeys("abc", curves)).axes
    assert all(tick == int(tick) for panel in panels for tick in panel.get_xticks())


def test_a_legend_names_the_groups_of_all_variants() -> None:
    one, other = (pd.DataFrame({"plain": [0.9], group: [0.5]}) for group in ("faded", "turned"))
    (legend,) = group_curves({"one": one, "other": other}).legends
    assert [text.get_text() for text in legend.get_texts()] == ["plain", "faded", "turned"]


def test_a_map_of_who_was_heard_says_what_its_empty_cells_are() -> None:
    roles = [Role.HONEST_MAJORITY, Role.HONEST_MINORITY]
    rounds = np.array([1, 2])
    always, sometimes = np.ones((2, 2)), np.array([[1.0, np.nan], [np.nan, 1.0]])
    for ratio, more in ((always, []), (sometimes, ["not asked, or no answer"])):
        (legend,) = heard_map({"mean": (ratio, rounds, roles)}).legends
        texts = [text.get_text() for text in legend.get_texts()]
        assert texts == ["honest majority", "honest minority", *more]


def test_a_map_of_who_was_heard_cuts_off_no_round_or_client_of_a_longer_run() -> None:
    long = (np.ones((3, 5)), np.arange(1, 6), list(Role))
    short = (np.ones((2, 2)), np.arange(2, 4), list(Role)[:2])
    figure = heard_map({"long": long, "short": short})
    for panel in figure.axes[:2]:
        (low, high), (bottom, top) = panel.get_xlim(), panel.get_ylim()
        assert low < 0.5
        assert (high, bottom, top) == (5.5, 2.5, -0.5)


def test_a_curve_goes_from_round_to_round_where_a_seed_has_one_in_which_nobody_answered() -> None:
    gap, whole = (
        pd.DataFrame(dict.fromkeys(Role, 1.0), index=rounds) for rounds in ([1, 3], [1, 2, 3])
    )
    curve = weights_over_rounds({"mean": [gap, whole]}).axes[0].lines[1]
    assert list(curve.get_xdata()) == [1, 2, 3]


def test_a_figure_as_pdf_is_the_same_bytes_each_time_with_fonts_that_publishers_take(
    tmp_path: Path,
) -> None:
    curves = {"one": pd.DataFrame({"plain": [0.9], "faded": [0.5]})}
    one, again = (save(group_curves(curves), tmp_path / name, (".pdf",))[0] for name in "ab")
    assert one.read_bytes() == again.read_bytes()
    assert b"/Subtype /Type0" in one.read_bytes()
    assert b"/Type3" not in one.read_bytes()


def test_a_file_that_cannot_be_written_whole_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "report.html"
    write_whole(page, b"whole")

    def fill_up(self: Path, content: bytes) -> None:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(OSError, match="No space"):
        write_whole(page, b"another")
    assert list(tmp_path.iterdir()) == [page]
    assert page.read_text() == "whole"


def test_bars_of_a_single_seed_have_no_intervals(tmp_path: Path) -> None:
    shares = {f"suppression.{role.value}.weight_ratio": 0.5 for role in Role}
    write_run(tmp_path / "one", "mean", 0, shares)
    figure = suppression_bars(compare(find_runs([tmp_path])))
    assert figure is not None
    lines = [line for bars in figure.axes[0].collections for line in bars.get_segments()]
    assert len(lines) == 3
    assert all(start[0] == end[0] for start, end in lines)


def test_a_long_name_beside_bars_is_broken_where_a_swept_value_begins(tmp_path: Path) -> None:
    variant = "multi_krum,attack=inner_product-2.0,clients.poisoned=5"
    write_run(tmp_path / "one", variant, 0, {"suppression.honest_minority.weight_ratio": 0.5})
    figure = suppression_bars(compare(find_runs([tmp_path / "one"])))
    assert figure is not None
    (label,) = figure.axes[0].get_yticklabels()
    assert label.get_text() == variant.replace(",clients", ",\nclients")


def test_bars_leave_no_place_for_a_role_that_nobody_has(tmp_path: Path) -> None:
    weights = {f"suppression.{role}.weight_ratio": 1.0 for role in list(Role)[:2]}
    write_run(tmp_path / "sweep", "mean", 0, weights)
    figure = suppression_bars(compare(find_runs([tmp_path])))
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_legend_handles_labels()[1] == ["honest majority", "honest minority"]
    assert [text.get_text() for text in axes.texts] == ["1.00", "1.00"]
    at = [text.xy[1] for text in axes.texts if isinstance(text, Annotation)]
    assert sum(at) == pytest.approx(0)  # on both sides of the variant's name


def test_a_negative_number_has_a_minus_in_latex_and_a_name_its_hyphen(tmp_path: Path) -> None:
    pull = "suppression.honest_minority.contribution_ratio"
    write_run(tmp_path / "signs", "near-mean", 0, {pull: -0.25})
    write_run(tmp_path / "signs", "mean", 0, {pull: 0.25})
    tex = latex(compare(find_runs([tmp_path / "signs"]), "mean"))
    assert r"near-mean & 1 & $-$0.25 \\" in tex
    assert r"near-mean & 1 & $-$0.50 \\" in tex  # the difference


def test_the_example_for_papers_does_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "comparing.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n# paper.py\n(.*?)```", page, re.DOTALL)
    for rule, worst in (("mean", 0.6), ("multi_krum", 0.3)):
        for attack in ("none", "mimic"):
            for seed in (0, 1):
                variant, found = f"{rule},attack={attack}", figures(0.8, worst + 0.1 * seed)
                write_run(tmp_path / "runs/defence_by_attack", variant, seed, found)
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    saved = []  # and not drawn, which takes a second
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **how: saved.append(path))
    exec(example, {})
    assert saved == ["worst_group.pdf"]
    said = capsys.readouterr().out
    assert r"multi_krum & 35.0 $\pm$ 63.5 & 35.0 $\pm$ 63.5" in said
    assert re.search(r"difference\.mean +-0\.3\n", said)
