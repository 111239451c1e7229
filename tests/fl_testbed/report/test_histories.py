"""What figures show of the rounds of a run, from hand-made client tables."""

import math

import pandas as pd
import pytest

from clients.shard import Role
from fl_testbed.metrics import answered
from fl_testbed.report.histories import (
    heard_by_round,
    suspicion_ranks,
    weight_ratios_by_round,
)

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


def test_who_was_heard_is_a_row_for_every_client_that_was_ever_sampled() -> None:
    ratio, rounds, roles = heard_by_round(answered(CLIENTS).iloc[::-1])
    expected = [[2.0, 2.0], [1.0, math.nan], [0.2, 0.0], [0.8, math.nan]]
    assert ratio.tolist() == [pytest.approx(row, nan_ok=True) for row in expected]
    assert rounds.tolist() == [1, 2]
    assert [role.value for role in roles] == [MAJORITY, MAJORITY, MINORITY, POISONED]
