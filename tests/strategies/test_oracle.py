"""What the truth about clients corrects: one majority client each side of minority and attacker."""

from functools import partial

import pytest
import torch
from a_round import round_of

from strategies.aggregation import (
    Aggregate,
    fltrust,
    foolsgold,
    krum,
    mean,
    norm_clipping,
    trimmed_mean,
)
from strategies.memory import Memory, client_ids
from strategies.oracle import Oracle
from strategies.pipeline import Pipeline
from strategies.pre_aggregation import clipping
from strategies.reweighting import Lift

MAJORITY, MINORITY, ATTACKER = 3, 7, 9
CLIENTS = torch.tensor([MAJORITY, 4, MINORITY, ATTACKER])
UPDATES = torch.tensor([[0.0], [1.0], [6.0], [9.0]])


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


PRIOR = torch.full((4,), 0.25, dtype=torch.float64)


def oracle(**corrected) -> Oracle:
    return Oracle({MINORITY}, {ATTACKER}, **corrected)


def step_of(rule, told: Oracle, reweight=None, memory: Memory | None = None, **pipeline):
    reference = torch.zeros(1)
    facts = round_of(4, clients=CLIENTS, losses=doubles(1, 2, 3, 4), reference=lambda: reference)
    step = Pipeline(rule, reweight, oracle=told, **pipeline)
    return step(UPDATES.clone(), facts, memory or {}, overwrite=True)


class TestLifting:
    @pytest.mark.parametrize(
        ("lifting", "weights"),
        [
            ("standard", (0.1, 0.1, 0.3, 0.5)),
            # The majority's share is 0.4 of what it should be; the minority's 1.2 times.
            ("ideal", (0.04, 0.16, 0.3, 0.1)),
            ("worst_case", (0.04, 0.16, 0.1, 0.5)),
        ],
    )
    def test_all_but_the_target_get_the_majority_s_ratio(self, lifting, weights):
        lift = Lift(doubles(0.1, 0.1, 0.3, 0.5), {})
        told = oracle(lifting=lifting).corrected(lift, CLIENTS, doubles(0.1, 0.4, 0.25, 0.25))
        expected = doubles(*weights)
        torch.testing.assert_close(told.weights, expected / expected.sum())

    def test_where_the_method_gave_all_weight_to_others_nobody_is_lifted(self):
        told = oracle(lifting="ideal").corrected(Lift(doubles(0, 0, 0, 1), {}), CLIENTS, PRIOR)
        assert torch.equal(told.weights, PRIOR)

    def test_where_the_majority_does_not_count_others_keep_their_prior(self):
        lift = Lift(doubles(0, 0, 0.75, 0.25), {})
        told = oracle(lifting="ideal").corrected(lift, CLIENTS, doubles(0, 0, 0.5, 0.5))
        torch.testing.assert_close(told.weights, doubles(0, 0, 0.6, 0.4))
        # One of the majority counts: it gets 0.8 of its prior, attackers keep 1.6 times theirs.
        lift, prior = Lift(doubles(0.6, 0, 0, 0.4), {}), doubles(0.75, 0, 0, 0.25)
        told = oracle(lifting="worst_case").corrected(lift, CLIENTS, prior)
        torch.testing.assert_close(told.weights, lift.weights)

    def test_each_of_the_target_keeps_its_own_ratio(self):
        told = Oracle({4, MINORITY}, {ATTACKER}, lifting="ideal")
        corrected = told.corrected(Lift(doubles(0.2, 0.1, 0.4, 0.3), {}), CLIENTS, PRIOR)
        torch.testing.assert_close(corrected.weights, doubles(2, 1, 4, 2) / 9)

    def test_a_target_that_does_not_count_stays_without_weight(self):
        prior = doubles(0.5, 0.25, 0, 0.25)
        told = oracle(lifting="ideal").corrected(Lift(prior, {}), CLIENTS, prior)
        assert torch.equal(told.weights, prior)

    @pytest.mark.parametrize(
        ("lifting", "ratios"), [("ideal", (1, 1, 5, 1)), ("worst_case", (1, 1, 1, 5))]
    )
    def test_a_method_that_flags_lifts_all_of_the_target_by_its_factor(self, lifting, ratios):
        missed = Lift(doubles(0.2, 0.6, 0.1, 0.1), {}, flag_factor=5.0)  # flagged nobody it should
        told = oracle(lifting=lifting).corrected(missed, CLIENTS, doubles(0.1, 0.2, 0.3, 0.4))
        expected = doubles(0.1, 0.2, 0.3, 0.4) * doubles(*ratios)
        torch.testing.assert_close(told.weights, expected / expected.sum())

    def test_ids_may_be_as_large_as_a_superlink_s(self):
        told = Oracle({2**64 - 9}, {5}, lifting="ideal")
        lift = Lift(doubles(0.2, 0.3, 0.5), {})
        corrected = told.corrected(lift, client_ids([3, 5, 2**64 - 9]), doubles(1, 1, 1) / 3)
        assert corrected.weights.argmax() == 2

    def test_the_pipeline_corrects_before_the_rule(self):
        def reweight(memory):
            return Lift(doubles(0.1, 0.1, 0.3, 0.5), memory)

        step = step_of(mean, oracle(lifting="ideal"), reweight)
        torch.testing.assert_close(step.lift, doubles(1, 1, 3, 1) / 6)
        torch.testing.assert_close(step.result.update, torch.tensor([28 / 6]))


class TestRemoving:
    @pytest.mark.parametrize(
        ("removing", "weights", "update"),
        [
            ("ideal", (1 / 6, 2 / 6, 3 / 6, 0), 20 / 6),
            ("worst_case", (1 / 7, 2 / 7, 0, 4 / 7), 38 / 7),
            ("standard", (0, 0, 0, 0), 0.0),
        ],
    )
    def test_attackers_or_the_minority_alone_are_removed(self, removing, weights, update):
        def zero(judged):
            return Aggregate(torch.zeros(1), doubles(0, 0, 0, 0), (~judged).double())

        prior = doubles(0.1, 0.2, 0.3, 0.4)
        result = oracle(removing=removing).judged(UPDATES, CLIENTS, prior, zero)
        torch.testing.assert_close(result.update, torch.tensor([update]))
        torch.testing.assert_close(result.weights, doubles(*weights))
        if removing != "standard":
            assert torch.equal(result.suspicion > 0, result.weights == 0)

    def test_shielded_the_rule_judges_the_others_and_the_minority_has_its_share(self):
        # Of 0, 1 and 9 the trimmed mean keeps 1: 3/4 · 1 + 1/4 · 6.
        def rule(updates, clients, losses):
            assert clients.tolist() == [MAJORITY, 4, ATTACKER]
            assert losses.tolist() == [1, 2, 4]
            return trimmed_mean(updates, n_malicious=1)._replace(memory={"kept": doubles(7)})

        step = step_of(rule, oracle(removing="shielded"))
        assert step.memory["rule.kept"].tolist() == [7]
        result = step.result
        torch.testing.assert_close(result.update, torch.tensor([2.25]))
        torch.testing.assert_close(result.weights, doubles(0, 0.75, 0.25, 0))
        torch.testing.assert_close(step.contribution, doubles(0, 0.75, 1.5, 0) / 2.25)
        assert result.suspicion.isnan().tolist() == [False, False, True, False]

    def test_shielded_contributions_are_of_what_the_rule_multiplies_rows_by(self):
        # Of the update 3, rows 1 and 9 give 3/4 each, the minority's 6 gives 3/2.
        def rule(updates):
            rescaled = doubles(0, 1, 1 / 9)  # to a length of 1
            weights, update = doubles(0, 0.5, 0.5), torch.tensor([2.0])
            return Aggregate(update, weights, weights, multipliers=rescaled)

        step = step_of(rule, oracle(removing="shielded"))
        torch.testing.assert_close(step.result.update, torch.tensor([3.0]))
        torch.testing.assert_close(step.contribution, doubles(0, 0.75, 1.5, 0.75) / 3)
        # Rows are multiplied by 3/4 · 10/9 in all, which weights share; the minority's by 1/4.
        torch.testing.assert_close(step.result.weights, doubles(0, 5, 3, 5) / 13)

    def test_shielded_a_round_without_the_minority_is_the_rule_s(self):
        told, own = Oracle({99}, {ATTACKER}, removing="shielded"), mean(UPDATES)
        assert told.judged(UPDATES, CLIENTS, PRIOR, lambda judged: own) is own

    def test_shielded_whoever_a_rule_clips_counts_for_less_beside_the_minority(self):
        # 0, 1 and 9 are clipped to 0, 1 and 1, a third each; the minority's 6 counts in full.
        rule = partial(norm_clipping, max_norm=1.0)
        step = step_of(rule, oracle(removing="shielded"))
        torch.testing.assert_close(step.result.update, torch.tensor([2.0]))
        multipliers = doubles(0.25, 0.25, 0.25, 0.25 / 9)
        torch.testing.assert_close(step.result.weights, multipliers / multipliers.sum())
        torch.testing.assert_close(step.contribution, doubles(0, 0.125, 0.75, 0.125))

    def test_shielded_a_clipping_before_the_rule_counts_like_one_in_it(self):
        steps = [partial(clipping, max_norm=1.0)]
        before = step_of(mean, oracle(removing="shielded"), pre_aggregate=steps)
        within = step_of(partial(norm_clipping, max_norm=1.0), oracle(removing="shielded"))
        torch.testing.assert_close(before.result.update, within.result.update)
        torch.testing.assert_close(before.result.weights, within.result.weights)
        torch.testing.assert_close(before.contribution, within.contribution)

    def test_shielded_the_rule_remembers_though_all_of_a_round_are_of_the_minority(self):
        told, rule = Oracle(set(CLIENTS.tolist()), (), removing="shielded"), foolsgold
        step = step_of(rule, told, memory={"rule.history.clients": CLIENTS})
        assert set(step.memory) == {"rule.history.clients"}
        assert step.result.weights.tolist() == [0.25] * 4
        assert step.result.suspicion.isnan().all()

    def test_shielded_the_prior_is_the_lifted_one(self):
        def reweight(memory):
            return Lift(doubles(0.1, 0.2, 0.5, 0.2), memory)

        told = Oracle({4, MINORITY}, {ATTACKER}, removing="shielded")
        result = step_of(mean, told, reweight).result
        torch.testing.assert_close(result.weights, doubles(0.1, 0.2, 0.5, 0.2))
        torch.testing.assert_close(result.update, torch.tensor([5.0]))

    def test_shielded_scaled_rows_are_judged_too(self):
        def reweight(memory):
            return Lift(doubles(0.1, 0.2, 0.5, 0.2), memory)

        told = oracle(removing="shielded")
        result = step_of(mean, told, reweight, order="lift_then_filter").result
        torch.testing.assert_close(result.update, torch.tensor([5.0]))
        torch.testing.assert_close(result.weights, doubles(0.1, 0.2, 0.5, 0.2))

    def test_shielded_a_lift_does_nothing_to_those_who_are_brought_to_one_length(self):
        # Rows 1 and 9 become 2, half of 3/4 each; the minority's 6 is 6/5 as long, for a quarter.
        def reweight(memory):
            return Lift(doubles(0.1, 0.2, 0.3, 0.4), memory)

        rule = partial(fltrust, reference=torch.tensor([2.0]))
        step = step_of(rule, oracle(removing="shielded"), reweight, order="lift_then_filter")
        torch.testing.assert_close(step.result.update, torch.tensor([3.3]))
        torch.testing.assert_close(step.contribution, doubles(0, 0.75, 1.8, 0.75) / 3.3)
        # Rows are multiplied by 3/4 · 10/9 in all, which weights share; the minority's by 0.3.
        torch.testing.assert_close(step.result.weights, doubles(0, 25, 18, 25) / 68)

    def test_a_rule_that_trusts_nobody_leaves_the_minority_alone(self):
        def nobody(updates):
            return Aggregate(torch.zeros(1), torch.zeros(len(updates)), PRIOR[:3])  # in float32

        result = step_of(nobody, oracle(removing="shielded")).result
        assert result.weights.tolist() == [0, 0, 1, 0]
        torch.testing.assert_close(result.update, torch.tensor([1.5]))

    def test_a_rule_needs_its_bound_of_those_it_judges(self):
        with pytest.raises(ValueError, match="got n=3"):
            step_of(lambda updates: krum(updates, n_malicious=1), oracle(removing="shielded"))
