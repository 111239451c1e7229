"""Whom a reweighting lifted, from hand-made client tables."""

import math
from typing import Any

import pandas as pd
import pytest

from fl_testbed.metrics import attack_success_at, lifting

MAJORITY, MINORITY, POISONED = "honest_majority", "honest_minority", "poisoned"


def row(round_: int, role: str, lift: float, loss: float = 1.0, **others: Any) -> dict[str, Any]:
    """One line of clients.csv, with a prior weight of 1/4."""
    return {
        "round": round_,
        "role": role,
        "status": "ok",
        "prior_weight": 0.25,
        "weight": lift,
        "lift": lift,
        "believed_loss": loss,
        "believed_confidence": 1 / (1 + loss),
        **others,
    }


# Nobody is lifted before the restart; then one of two minority clients and the attacker are.
RUN = pd.DataFrame(
    [
        row(1, MAJORITY, 0.25, loss=0.5),
        row(1, MINORITY, 0.25, loss=2.0),
        row(1, MINORITY, 0.25, loss=4.0),
        row(1, POISONED, 0.25, loss=3.0),
        row(2, MAJORITY, 0.1),
        row(2, MINORITY, 0.1),
        row(2, MINORITY, 0.5),
        row(2, POISONED, 0.3),
    ]
)


def test_a_rejected_answer_lifts_nobody():
    # 7 of 9 are left: 1/9 and 1/7 with the digits of a file, where 9/7 of the first is less.
    prior, left = {"prior_weight": 0.111111111}, 0.142857143
    rejected = [row(1, POISONED, math.nan, status="rejected: not finite", **prior)] * 2
    others = [row(1, role, left, **prior) for role in [MAJORITY] * 4 + [MINORITY] * 3]
    figures = lifting(pd.DataFrame([*others, *rejected]))
    assert figures["ratio"][MAJORITY] == pytest.approx(1)
    assert figures["flagged_minority"] == {"precision": None, "recall": 0}


def test_weights_count_after_the_restart():
    assert lifting(RUN, restart=1)["ratio"] == pytest.approx(
        {MAJORITY: 0.4, MINORITY: 1.2, POISONED: 1.2}
    )
    assert lifting(RUN)["ratio"][POISONED] == pytest.approx(1.1)


def test_flags_have_precision_and_recall_of_minority_and_of_poison():
    found = lifting(RUN, restart=1)
    assert found["flagged_minority"] == {"precision": 0.5, "recall": 0.5}
    assert found["flagged_poisoned"] == {"precision": 0.5, "recall": 1.0}


def test_a_role_that_nobody_has_is_no_share_of_those_lifted():
    found = lifting(RUN[RUN["role"] != POISONED], restart=1)
    assert found["flagged_poisoned"] == {"precision": None, "recall": None}
    assert found["flagged_minority"] == {"precision": 1.0, "recall": 0.5}


def test_the_heuristic_is_judged_on_all_rounds():
    # Round 1: the attacker's loss is above one minority client's of two; round 2: all are equal.
    found = lifting(RUN, restart=1)
    assert found["auc_by_loss"] == 0.5
    only_first = lifting(RUN[(RUN["round"] == 1) & (RUN["believed_loss"] != 4.0)])
    assert only_first["auc_by_loss"] == only_first["auc_by_confidence"] == 1.0


def test_without_a_reweighting_nobody_is_flagged_and_nothing_is_believed():
    rounded = {"prior_weight": 0.249999999, "lift": 0.249999999 * (1 + 1e-15)}
    unbelieved = {"believed_loss": math.nan, "believed_confidence": math.nan}
    plain = RUN[RUN["round"] == 1].assign(**rounded, **unbelieved)
    found = lifting(plain)
    assert found["ratio"] == pytest.approx({MAJORITY: 1, MINORITY: 1, POISONED: 1}, rel=1e-12)
    assert found["flagged_minority"] == {"precision": None, "recall": 0.0}
    assert found["auc_by_loss"] is None
    assert lifting(plain[plain["role"] != POISONED])["flagged_poisoned"]["recall"] is None


def test_clients_without_an_answer_are_left_out():
    failed = row(2, POISONED, math.nan, loss=math.nan, status="failed: no reply")
    assert lifting(pd.concat([RUN, pd.DataFrame([failed])]), 1) == lifting(RUN, 1)


def test_runs_are_compared_where_they_serve_the_worst_group_equally_well():
    rounds = pd.DataFrame(
        {
            "round": [1, 2, 3, 4, 5],
            "restarted": [1, 1, 0, 0, 0],
            "worst_group_accuracy": [0.9, 0.9, 0.3, 0.6, 0.5],
            "attack_success_rate": [0.8, 0.8, 0.1, 0.2, 0.4],
        }
    )
    assert attack_success_at(rounds, 0.5) == attack_success_at(rounds, 0.6) == 0.2
    assert attack_success_at(rounds, 0.7) is None
    assert attack_success_at(rounds.assign(restarted=0), 0.7) == 0.8
