"""What figures show of the rounds of a run, from hand-made client tables."""

import math
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from run_folders import write_run

from clients.shard import Role
from fl_testbed.metrics import answered
from fl_testbed.report.comparison import compare
from fl_testbed.report.gallery import pictures
from fl_testbed.report.histories import (
    after_restart,
    client_history,
    group_accuracy_by_round,
    heard_by_round,
    last_client_accuracies,
    suspicion_ranks,
    weight_ratios_by_round,
)
from fl_testbed.report.results import find_runs
from fl_testbed.scenario import ScenarioError

MAJORITY, MINORITY, POISONED = (role.value for role in Role)
# Client 5 is a minority client, 7 an attacker; in round 2 one fails and one is rejected.
CLIENTS = pd.DataFrame(
    [
        (1, 0, MAJORITY, "ok", 0.25, 0.50, 1.0),
        (1, 2, MAJORITY, "ok", 0.25, 0.25, 3.0),
        (1, 5, MINORITY, "ok", 0.25, 0.05, 3.0),
        (1, 7, POISONED, "ok", 0.25, 0.20, 9.0),
        (2, 0, MAJORITY, "ok", 0.50, 1.00, 2.0),
        (2, 2, MAJORITY, "failed: no reply", math.nan, math.nan, math.nan),
        (2, 5, MINORITY, "rejected: not finite", 0.50, 0.0, math.nan),
    ],
    columns=["round", "client", "role", "status", "prior_weight", "weight", "suspicion"],
)


def test_a_roles_weight_ratio_of_a_round_is_its_weight_over_its_fair_share() -> None:
    ratios = weight_ratios_by_round(answered(CLIENTS))
    assert ratios.loc[1].tolist() == pytest.approx([1.5, 0.2, 0.8])
    assert ratios.loc[2].tolist() == pytest.approx([2.0, 0.0, math.nan], nan_ok=True)
    untold = answered(CLIENTS).assign(weight=math.nan, status="unmeasured: update is not finite")
    assert weight_ratios_by_round(untold).isna().to_numpy().tolist() == [[True] * 3] * 2


def test_suspicion_ranks_run_from_0_to_1_within_a_round_and_ties_share_theirs() -> None:
    ranks = suspicion_ranks(answered(CLIENTS))
    # Ranks 0, 1.5, 1.5 and 3 of 3; who is alone in a round stands in the middle.
    assert ranks["rank"].tolist() == pytest.approx([0, 0.5, 0.5, 1, 0.5])
    assert ranks["role"].tolist() == [MAJORITY, MAJORITY, MINORITY, POISONED, MAJORITY]


def test_rounds_before_the_last_restart_are_left_out(tmp_path: Path) -> None:
    assert after_restart(tmp_path, CLIENTS).equals(CLIENTS)  # a replay has no rounds.csv
    for restarted, left in (((0, 0), [1, 2]), ((1, 0), [2]), ((1, 1), [])):
        rounds = pd.DataFrame({"round": [1, 2], "restarted": restarted})
        rounds.to_csv(tmp_path / "rounds.csv", index=False)
        assert after_restart(tmp_path, CLIENTS)["round"].unique().tolist() == left


def test_who_was_heard_is_a_row_for_every_client_that_was_ever_sampled() -> None:
    ratio, rounds, roles = heard_by_round(answered(CLIENTS).iloc[::-1])
    expected = [[2.0, 2.0], [1.0, math.nan], [0.2, 0.0], [0.8, math.nan]]
    assert ratio.tolist() == [pytest.approx(row, nan_ok=True) for row in expected]
    assert rounds.tolist() == [1, 2]
    assert [role.value for role in roles] == [MAJORITY, MAJORITY, MINORITY, POISONED]


def test_a_round_in_which_nobody_answered_has_its_place_on_the_map() -> None:
    later = CLIENTS[CLIENTS["round"] == 1].assign(round=4)
    ratio, rounds, _ = heard_by_round(answered(pd.concat([CLIENTS, later])))
    assert rounds.tolist() == [1, 2, 3, 4]
    assert ratio[2].tolist() == pytest.approx([0.2, 0.0, math.nan, 0.2], nan_ok=True)


@pytest.mark.parametrize(
    ("column", "cell"), [("weight", "abc"), ("role", "bystander"), ("round", ""), ("client", "x")]
)
def test_a_client_table_that_no_run_writes_is_named(column: str, cell: str, tmp_path: Path) -> None:
    damaged = CLIENTS.astype(object)
    damaged.loc[0, column] = cell
    damaged.to_csv(tmp_path / "clients.csv", index=False)
    with pytest.raises(ScenarioError, match=r"clients\.csv: is not what a run writes"):
        client_history(tmp_path)


def test_accuracy_by_group_is_the_mean_of_runs_with_groups_in_their_order(tmp_path: Path) -> None:
    for seed, accuracy in ((0, 0.5), (1, 0.7)):
        small = {"is_minority.plain": False, "is_minority.inverted": True}
        run = write_run(tmp_path / "sweep", "mean", seed, small)
        rows = f"3,plain,9,0.9\n3,inverted,9,{accuracy}\n6,plain,9,\n6,inverted,9,0.8\n"
        (run / "groups.csv").write_text(f"round,group,n_examples,accuracy\n{rows}")
    table = group_accuracy_by_round(find_runs([tmp_path / "sweep"]))
    assert (list(table.columns), list(table.index)) == (["plain", "inverted (minority)"], [3, 6])
    assert table.loc[3].tolist() == pytest.approx([0.9, 0.6])
    assert table.loc[6].tolist() == pytest.approx([math.nan, 0.8], nan_ok=True)


def test_clients_of_all_runs_are_judged_under_the_last_tested_model(tmp_path: Path) -> None:
    for seed, rows in enumerate(
        ("0,0,honest_majority,0.1\n2,0,honest_majority,0.9\n", "3,1,honest_minority,0.5\n3,2,,\n")
    ):
        run = write_run(tmp_path / "sweep", "mean", seed, {})
        (run / "accuracies.csv").write_text(f"round,client,role,accuracy\n{rows}")
    found = last_client_accuracies(find_runs([tmp_path / "sweep"]))
    assert found.to_numpy().tolist() == [["honest_majority", 0.9], ["honest_minority", 0.5]]


def test_a_group_table_that_no_run_writes_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "sweep", "mean", 0, {})
    (run / "groups.csv").write_text("round,group,n_examples,accuracy\n0,all,1,good\n")
    with pytest.raises(ScenarioError, match=r"groups\.csv: is not what a run writes"):
        group_accuracy_by_round(find_runs([run]))


def test_suspicions_are_ranked_within_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked: dict[str, pd.DataFrame] = {}

    def score_distributions(page: dict[str, pd.DataFrame], areas: dict[str, float]) -> Figure:
        ranked.update(page)
        return Figure()

    monkeypatch.setattr("fl_testbed.report.gallery.score_distributions", score_distributions)
    for seed, scale in ((0, 1.0), (1, 100.0)):  # scores of different runs are not on one scale
        run = write_run(tmp_path / "sweep", "mean", seed, {"suppression.separability": 0.5})
        clients = CLIENTS[CLIENTS["round"] == 1]
        scaled = clients.assign(suspicion=scale * clients["suspicion"])
        scaled.to_csv(run / "clients.csv", index=False)
    runs = find_runs([tmp_path / "sweep"])
    list(pictures(compare(runs)))
    assert ranked["mean"]["rank"].tolist() == pytest.approx([0, 0.5, 0.5, 1] * 2)


def test_a_run_in_which_nobody_ever_answered_has_figures_of_what_there_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "sweep", "mean", 0, {"final.accuracy": 0.1})
    CLIENTS.assign(status="failed: no reply").to_csv(run / "clients.csv", index=False)
    (run / "groups.csv").write_text("round,group,n_examples,accuracy\n0,all,1,0.1\n")
    (run / "rounds.csv").write_text("round\n0\n")
    runs = find_runs([run])
    names = [picture.name for picture in pictures(compare(runs))]
    assert names == ["weights", "groups"]
