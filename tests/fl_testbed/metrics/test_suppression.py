"""Suppression figures of hand-made client tables, each worked out on paper."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_testbed.metrics import area_under_curve, participation, suppression, weight_by_group

MAJORITY, MINORITY, POISONED = "honest_majority", "honest_minority", "poisoned"
ROLES = {0: MAJORITY, 1: MAJORITY, 2: MINORITY, 3: POISONED}
NOTHING = {
    "appearances": 0,
    **dict.fromkeys(("weight_ratio", "contribution_ratio", "retention", "halved")),
}


def row(round_: int, client: int, weight: float, **others: Any) -> dict[str, Any]:
    """One line of clients.csv, with a prior weight of 1/4."""
    return {
        "round": round_,
        "client": client,
        "role": ROLES.get(client, MAJORITY),
        "status": "ok",
        "prior_weight": 0.25,
        "weight": weight,
        "contribution": 0.25,
        "suspicion": 0.0,
        **others,
    }


def figures(*rows: dict[str, Any], selects: bool = True, seed: int = 0) -> dict[str, Any]:
    return suppression(pd.DataFrame(rows), np.random.default_rng(seed), selects=selects)


# Two rounds of four clients. The minority is heard in neither round by more than a tenth.
TWO_ROUNDS = (
    row(1, 0, 0.50, contribution=0.4),
    row(1, 1, 0.40, contribution=0.3),
    row(1, 2, 0.00, contribution=0.0),
    row(1, 3, 0.10, contribution=0.3),
    row(2, 0, 0.25, contribution=0.4),
    row(2, 1, 0.45, contribution=0.4),
    row(2, 2, 0.10, contribution=0.1),
    row(2, 3, 0.20, contribution=0.1),
)


class TestRoles:
    def test_contributions_that_a_running_sum_cannot_know_are_missing_not_nothing(self):
        unknown = [{**line, "contribution": math.nan} for line in TWO_ROUNDS]
        result = figures(*unknown)
        assert [result[role]["contribution_ratio"] for role in (MAJORITY, MINORITY)] == [None, None]
        assert result[MAJORITY]["weight_ratio"] == pytest.approx(1.6)

    def test_contributions_to_rounds_that_moved_nothing_are_nothing(self):
        idle = [{**line, "weight": 0.0, "contribution": math.nan} for line in TWO_ROUNDS]
        assert figures(*idle)[MAJORITY]["contribution_ratio"] == 0
        assert figures(row(3, 0, 0.25), *idle)[MAJORITY]["contribution_ratio"] == 0.25 / 1.25

    @pytest.mark.parametrize("status", ["ok", "unmeasured: update is not finite"])
    def test_a_weight_that_nobody_can_tell_is_not_a_weight_of_nothing(self, status):
        untold = [row(3, client, math.nan, status=status) for client in range(4)]
        assert figures(*TWO_ROUNDS, *untold) == figures(*TWO_ROUNDS)

    def test_ratios_are_sums_over_rounds(self):
        result = figures(*TWO_ROUNDS)
        # Majority: 1.6 of a prior 1.0. Minority: 0.1 of 0.5. Poisoned: 0.3 of 0.5.
        ratios = {role: result[role]["weight_ratio"] for role in (MAJORITY, MINORITY, POISONED)}
        assert ratios == pytest.approx({MAJORITY: 1.6, MINORITY: 0.2, POISONED: 0.6})
        moved = {
            role: result[role]["contribution_ratio"] for role in (MAJORITY, MINORITY, POISONED)
        }
        assert moved == pytest.approx({MAJORITY: 1.5, MINORITY: 0.2, POISONED: 0.8})

    def test_retention_is_the_share_of_appearances_with_any_weight(self):
        result = figures(*TWO_ROUNDS)
        assert [result[role]["retention"] for role in (MAJORITY, MINORITY, POISONED)] == [1, 0.5, 1]
        assert result["minority_false_positive_rate"] == 0.5

    def test_halved_is_the_share_of_appearances_below_half_the_prior_weight(self):
        result = figures(*TWO_ROUNDS)
        # Half the prior is 0.125: both of the minority's appearances, one of the attacker's.
        assert [result[role]["halved"] for role in (MAJORITY, MINORITY, POISONED)] == [0, 1, 0.5]

    def test_exactly_half_the_prior_weight_is_not_halved(self):
        assert figures(row(1, 2, 0.125))[MINORITY]["halved"] == 0
        seventh = row(1, 2, 0.0714285714, prior_weight=0.142857143)  # as a file has them
        assert figures(seventh)[MINORITY]["halved"] == 0
        uneven = figures(row(1, 2, 0.125), row(2, 2, 0.125, prior_weight=0.5))
        assert uneven[MINORITY]["halved"] == 0.5

    def test_only_a_rule_that_selects_retains_or_removes(self):
        result = figures(*TWO_ROUNDS, selects=False)
        for role in (MAJORITY, MINORITY, POISONED):
            assert result[role]["retention"] is None
        for key in ("minority_false_positive_rate", "filter_bias", "filter_bias_interval"):
            assert result[key] is None
        assert result[MINORITY]["halved"] == 1
        assert result[MINORITY]["weight_ratio"] == pytest.approx(0.2)

    def test_a_client_that_failed_is_left_out_of_all_figures(self):
        failed = row(3, 2, 0.0, status="failed: ValueError", contribution=math.nan)
        assert figures(*TWO_ROUNDS, failed) == figures(*TWO_ROUNDS)

    def test_a_rejected_reply_counts_as_weight_0(self):
        rejected = row(3, 2, 0.0, status="rejected: NaN", contribution=math.nan, suspicion=math.nan)
        result = figures(*TWO_ROUNDS, rejected)
        minority = result[MINORITY]
        assert minority["weight_ratio"] == pytest.approx(0.1 / 0.75)
        assert minority["contribution_ratio"] == pytest.approx(0.1 / 0.75)
        assert minority["retention"] == pytest.approx(1 / 3)
        assert result["minority_false_positive_rate"] == pytest.approx(2 / 3)
        assert result["filter_bias"] == pytest.approx(2 / 3)
        assert minority["halved"] == 1

    def test_a_role_that_is_never_sampled_is_missing(self):
        majority_alone = [r for r in TWO_ROUNDS if r["role"] == MAJORITY]
        result = figures(*majority_alone)
        assert result[MINORITY] == result[POISONED] == NOTHING
        for key in ("minority_false_positive_rate", "filter_bias", "separability"):
            assert result[key] is None

    def test_a_role_of_which_everybody_failed_or_had_no_say_is_missing_too(self):
        mute = figures(row(1, 0, 1.0), row(1, 2, 0.0, prior_weight=0.0))[MINORITY]
        assert mute == {**NOTHING, "appearances": 1}
        assert figures(row(1, 0, 1.0), row(1, 2, math.nan, status="failed: x"))[MINORITY] == NOTHING


POPULATION = {MAJORITY: 2, MINORITY: 1, POISONED: 1}


class TestParticipation:
    def test_whoever_is_always_asked_takes_part_exactly_as_often_as_everybody(self):
        failed = row(3, 3, 0.0, status="failed: ValueError")
        asked = pd.DataFrame([*TWO_ROUNDS, *(row(3, client, 0.25) for client in range(3)), failed])
        assert participation(asked, POPULATION) == dict.fromkeys(POPULATION, 1.0)

    def test_a_role_that_is_never_asked_takes_no_part_and_is_not_missing(self):
        asked = pd.DataFrame([row(r, client, 0.5) for r in (1, 2) for client in (0, 3)])
        # Of four appearances two are the majority's, as of four clients; attackers' are twice one.
        found = participation(asked, POPULATION)
        assert found == {MAJORITY: 1.0, MINORITY: 0.0, POISONED: 2.0}
        assert MINORITY not in participation(asked, POPULATION | {MINORITY: 0})
        assert participation(asked[:0], POPULATION)[MINORITY] is None


class TestFilterBias:
    def test_it_is_the_removal_rate_of_the_minority_minus_the_majority_s(self):
        # Minority: removed in 2 of 3 appearances. Majority: in 1 of 5, whoever was sampled more.
        result = figures(
            *(row(r, 2, weight) for r, weight in enumerate((0.0, 0.0, 0.3))),
            *(row(r, 0, weight) for r, weight in enumerate((0.0, 0.3))),
            *(row(r, 1, weight) for r, weight in enumerate((0.3, 0.3, 0.3))),
        )
        assert result["filter_bias"] == pytest.approx(2 / 3 - 1 / 5)

    def test_clients_who_all_fare_the_same_leave_no_doubt(self):
        result = figures(row(1, 0, 0.3), row(1, 1, 0.3), row(1, 2, 0.0), row(1, 3, 0.3))
        assert result["filter_bias"] == 1
        assert result["filter_bias_interval"] == [1, 1]

    def test_the_bootstrap_draws_clients_and_not_appearances(self):
        # Three minority clients with 100 appearances each, one always removed, two never: drawing
        # clients gives a rate of 1 in 1/27 of draws, within 95 % and not within 90 %; drawing
        # appearances something near 1/3.
        result = figures(
            *(row(r, 10, 0.0, role=MINORITY) for r in range(100)),
            *(row(r, c, 0.3, role=MINORITY) for c in (11, 12) for r in range(100)),
            *(row(r, 0, 0.3) for r in range(100)),
        )
        assert result["filter_bias"] == pytest.approx(1 / 3)
        assert result["filter_bias_interval"] == [0, 1]
        # Of eight, three or more are the removed one in 7 % of draws, four or more in 1 %.
        eight = (row(1, c, 0.3 * (c > 10), role=MINORITY) for c in range(10, 18))
        assert figures(*eight, row(1, 0, 0.3))["filter_bias_interval"] == [0, 3 / 8]

    def test_the_interval_holds_the_estimate_and_repeats_with_the_seed(self):
        chance = np.random.default_rng(0)
        rows = [
            row(r, c, 0.25 * (chance.random() < p), role=role)
            for role, p, clients in ((MAJORITY, 0.9, range(20)), (MINORITY, 0.4, range(20, 30)))
            for c in clients
            for r in range(5)
        ]
        first, again, other = (figures(*rows, seed=seed) for seed in (1, 1, 2))
        low, high = first["filter_bias_interval"]
        assert low < first["filter_bias"] < high
        assert first == again
        assert first["filter_bias_interval"] != other["filter_bias_interval"]

    def test_attackers_have_no_part_in_it(self):
        honest = (row(1, 0, 0.3), row(1, 2, 0.0))
        with_attacker = figures(*honest, row(1, 3, 0.0))
        assert with_attacker["filter_bias"] == figures(*honest)["filter_bias"] == 1


class TestSeparability:
    def test_it_counts_the_pairs_in_which_the_attacker_looks_worse(self):
        # Attackers with 3 and 1 against minorities with 2 and 1: two wins, one tie, one loss.
        result = figures(
            row(1, 3, 0.25, suspicion=3.0),
            row(1, 4, 0.25, suspicion=1.0, role=POISONED),
            row(1, 2, 0.25, suspicion=2.0),
            row(1, 5, 0.25, suspicion=1.0, role=MINORITY),
        )
        assert result["separability"] == (2 + 0.5) / 4

    def test_clients_are_compared_within_rounds_alone(self):
        # Scores grow with the rounds; in each round the minority looks worse.
        rows = [
            row(r, client, 0.25, suspicion=10.0 * r + offset)
            for r in (1, 2, 3)
            for client, offset in ((3, 0.0), (2, 1.0))
        ]
        assert figures(*rows)["separability"] == 0

    def test_rounds_weigh_by_their_pairs(self):
        # Round 1: one pair, won. Round 2: three pairs, lost.
        rows = [row(1, 3, 0.25, suspicion=1.0), row(1, 2, 0.25, suspicion=0.0)]
        rows += [row(2, 3, 0.25, suspicion=0.0)]
        rows += [row(2, c, 0.25, suspicion=1.0, role=MINORITY) for c in (5, 6, 7)]
        result = figures(*rows)
        assert (result["separability"], result["separability_pairs"]) == (0.25, 4)

    def test_the_majority_has_no_part_in_it(self):
        rows = [row(1, 3, 0.25, suspicion=1.0), row(1, 2, 0.25, suspicion=0.0)]
        rows += [row(1, 0, 0.25, suspicion=9.0)]
        assert figures(*rows)["separability"] == 1

    def test_a_rule_that_suspects_nobody_separates_nobody(self):
        result = figures(*TWO_ROUNDS)
        assert (result["separability"], result["separability_pairs"]) == (None, 0)

    def test_roles_that_never_meet_cannot_be_compared(self):
        rows = [row(1, 3, 0.25, suspicion=1.0), row(2, 2, 0.25, suspicion=0.0)]
        assert figures(*rows)["separability"] is None

    def test_a_rejected_reply_without_a_score_is_left_out(self):
        rows = [row(1, 3, 0.25, suspicion=1.0), row(1, 2, 0.25, suspicion=0.0)]
        rejected = row(1, 5, 0.0, role=MINORITY, suspicion=math.nan, status="rejected: NaN")
        assert figures(*rows, rejected)["separability"] == 1


scores = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=8)


@given(positive=scores, negative=scores)
def test_the_area_under_the_curve_is_the_share_of_pairs_won(positive, negative):
    won = sum((p > n) + (p == n) / 2 for p in positive for n in negative)
    area = area_under_curve(np.array(positive), np.array(negative))
    assert area == pytest.approx(won / (len(positive) * len(negative)))


class TestWeightByGroup:
    def holdings(self, *rows: tuple[int, str, int]) -> pd.DataFrame:
        return pd.DataFrame(
            [(client, ROLES[client], group, count) for client, group, count in rows],
            columns=["client", "role", "group", "n_examples"],
        )

    def test_a_client_speaks_for_a_group_with_its_share_of_what_it_holds(self):
        held = self.holdings((0, "plain", 10), (1, "plain", 30), (1, "faded", 10), (2, "faded", 5))
        plain = (0.75 + 0.75 * 0.85) / (0.5 + 0.75 * 0.5)
        faded = (0.25 * 0.85 + 0.10) / (0.25 * 0.5 + 0.5)
        found = weight_by_group(pd.DataFrame(TWO_ROUNDS), held)
        assert list(found.items()) == [
            ("plain", pytest.approx(plain)),
            ("faded", pytest.approx(faded)),
        ]

    def test_attackers_and_whoever_was_never_asked_speak_for_nobody(self):
        held = self.holdings((0, "plain", 10), (3, "plain", 10), (3, "turned", 10), (2, "faded", 1))
        asked = pd.DataFrame([row(1, 0, 0.5), row(1, 3, 0.5)])
        assert weight_by_group(asked, held) == {"plain": 2.0}

    def test_who_failed_is_left_out_and_who_was_rejected_had_no_say(self):
        held = self.holdings((0, "plain", 10), (1, "plain", 10), (2, "faded", 10))
        rejected, failed = "rejected: not finite", "failed: killed"
        rows = [row(1, 0, 0.5), row(1, 1, 0.0, status=rejected), row(1, 2, 0.0, status=failed)]
        rows += [row(2, 0, 0.5), row(3, 0, math.nan)]  # the last is a weight that nobody can tell
        assert weight_by_group(pd.DataFrame(rows), held) == {"plain": pytest.approx(1.0 / 0.75)}
