from functools import partial

import numpy as np
import pytest
import torch
from a_round import round_of
from pretended_device import ELSEWHERE, PretendedDevice

from strategies.aggregation import (
    TooFewClientsError,
    bulyan,
    centred_clipping,
    coordinate_median,
    fltrust,
    foolsgold,
    k_loss,
    krum,
    mean,
    multi_krum,
    norm_clipping,
    trimmed_mean,
    weak_dp,
)
from strategies.oracle import Oracle
from strategies.pipeline import Pipeline
from strategies.pre_aggregation import (
    Mixed,
    adaptive_clipping,
    bucketing,
    clipping,
    nearest_neighbour_mixing,
)
from strategies.reweighting import Lift, agnostic, jtt, q_fedavg


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def lift_to(*weights: float, step: float = 1.0):
    return lambda memory: Lift(doubles(*weights), memory, step=step)


LINE = torch.tensor([[0.0], [1.0], [6.0], [9.0], [13.0]])


def test_without_a_reweighting_the_rule_gets_the_prior():
    facts = round_of(2, prior=doubles(0.25, 0.75))
    step = Pipeline(mean)(torch.tensor([[0.0], [4.0]]), facts, {})
    assert step.result.update.tolist() == [3.0]
    assert step.memory == {}
    assert not step.restart


def test_a_rule_is_handed_the_facts_that_it_names_and_no_others():
    def asks(updates, round_, clients):
        assert (round_, clients.tolist()) == (1, [0, 1])
        return mean(updates)

    Pipeline(asks)(torch.ones(2, 1), round_of(2), {})


def test_a_bound_fact_stays_as_it_was_bound():
    bound = partial(fltrust, reference=torch.tensor([2.0]))
    step = Pipeline(bound)(torch.tensor([[1.0], [1.0]]), round_of(2), {})
    assert step.result.update.tolist() == [2.0]


def test_the_server_trains_only_for_rules_that_name_a_reference():
    facts = round_of(2, reference=lambda: torch.tensor([3.0]))
    step = Pipeline(fltrust)(torch.tensor([[1.0], [-1.0]]), facts, {})
    assert step.result.update.tolist() == [3.0]


def test_a_parameter_that_nobody_can_fill_is_an_error_at_once():
    with pytest.raises(TypeError, match="krum needs n_malicious, which is not a fact of a round"):
        Pipeline(krum)


def test_losses_are_asked_for_only_where_somebody_names_them():
    assert not Pipeline(mean).needs_losses
    assert Pipeline(mean, partial(agnostic, step_size=1.0)).needs_losses
    trusting = Pipeline(lambda updates, confidences: mean(updates))  # a report of losses has them
    assert trusting.needs_losses
    assert trusting.needs_confidences


def test_means_of_rows_that_are_scaled_one_by_one_need_no_matrix():
    by_row = Pipeline(partial(norm_clipping, max_norm=0.5)).row_by_row
    assert [by_row.scale(norm) for norm in (0.0, 0.25, 1.0)] == [1, 1, 0.5]
    assert Pipeline(partial(weak_dp, max_norm=0.5, noise_std=1.0)).row_by_row is None  # noise


def test_filter_then_lift_judges_plain_updates_and_averages_by_the_lift():
    rule = partial(multi_krum, n_malicious=1, n_selected=2)  # selects 1 and 9
    step = Pipeline(rule, lift_to(0.1, 0.2, 0.1, 0.6, 0.0))(LINE.clone(), round_of(5), {})
    torch.testing.assert_close(step.result.update, torch.tensor([7.0]))
    torch.testing.assert_close(step.result.weights, doubles(0, 0.25, 0, 0.75, 0))


def test_lift_then_filter_judges_scaled_updates():
    # Scaled by 5 · lift the rows are 0, 1, 6, 45, 13: Krum now picks 1 (1 + 25).
    rule = partial(krum, n_malicious=1)
    lift = lift_to(0.2, 0.2, 0.2, 1.0, 0.2)
    step = Pipeline(rule, lift, "lift_then_filter")(LINE.clone(), round_of(5), {})
    assert step.result.update.tolist() == [1.0]
    assert step.result.weights.tolist() == [0, 1, 0, 0, 0]


def test_lift_then_filter_with_the_mean_is_the_lifted_mean():
    updates, lift = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), lift_to(0.75, 0.25)
    first = Pipeline(mean, lift)(updates.clone(), round_of(2), {})
    last = Pipeline(mean, lift, "lift_then_filter")(updates.clone(), round_of(2), {})
    torch.testing.assert_close(last.result.update, first.result.update)
    torch.testing.assert_close(last.result.weights, doubles(0.75, 0.25))


def test_lift_then_filter_reports_the_lift_and_the_filter_together():
    # Rows 0, 2 · 4/3 and 0.5 · 8/3: trimming keeps the last alone.
    rule = partial(trimmed_mean, n_malicious=1)
    updates = torch.tensor([[0.0], [2.0], [0.5]])
    lift = lift_to(1 / 9, 4 / 9, 4 / 9)
    step = Pipeline(rule, lift, "lift_then_filter")(updates, round_of(3), {})
    torch.testing.assert_close(step.result.weights, doubles(0, 0, 1))
    torch.testing.assert_close(step.result.update, torch.tensor([2 / 3]))


def test_a_lifted_giant_stays_finite():
    updates = torch.tensor([[3e38], [1.0], [1.0], [1.0], [1.1]])
    rule, lift = partial(krum, n_malicious=1), lift_to(0.6, 0.1, 0.1, 0.1, 0.1)
    step = Pipeline(rule, lift, "lift_then_filter")(updates, round_of(5), {})
    torch.testing.assert_close(step.result.update, torch.tensor([0.5]))


def test_the_lifts_step_multiplies_the_update():
    step = Pipeline(mean, lift_to(0.5, 0.5, step=0.25))(torch.full((2, 1), 4.0), round_of(2), {})
    assert step.result.update.tolist() == [1.0]


def test_contributions_are_shares_of_the_pull_along_the_update():
    # The update is (0.2, 0): the pulls are 0.5 · 0.3 · 0.2 and 0.5 · 0.1 · 0.2.
    updates = torch.tensor([[0.3, 0.1], [0.1, -0.1]])
    step = Pipeline(mean)(updates, round_of(2), {})
    torch.testing.assert_close(step.contribution, doubles(0.75, 0.25))


@pytest.mark.parametrize("max_norm", [1e3, 10.0, 0.1])
@pytest.mark.parametrize("overwrite", [False, True])
def test_contributions_to_fltrust_are_of_updates_brought_to_one_length(max_norm, overwrite):
    bound = partial(fltrust, reference=torch.tensor([2.0]))
    pipeline = Pipeline(bound, pre_aggregate=[partial(clipping, max_norm=max_norm)])
    updates = torch.tensor([[1.0], [100.0], [-5.0]])
    step = pipeline(updates, round_of(3), {}, overwrite=overwrite)
    torch.testing.assert_close(step.contribution, doubles(0.5, 0.5, 0))
    torch.testing.assert_close(step.result.weights, doubles(0.5, 0.5, 0))


def test_a_lift_does_nothing_to_updates_that_are_brought_to_one_length():
    rule, lift = partial(fltrust, reference=torch.tensor([2.0])), lift_to(0.3, 0.6, 0.1)
    step = Pipeline(rule, lift, "lift_then_filter")(torch.ones(3, 1), round_of(3), {})
    torch.testing.assert_close(step.result.weights, doubles(1, 1, 1) / 3)
    torch.testing.assert_close(step.contribution, doubles(1, 1, 1) / 3)


def test_a_lift_shares_out_the_direction_of_a_bucket():
    rule, lift = partial(fltrust, reference=torch.tensor([2.0])), lift_to(0.3, 0.6, 0.1)
    one_bucket = [partial(bucketing, size=3)]
    pipeline = Pipeline(rule, lift, "lift_then_filter", one_bucket)
    step = pipeline(torch.ones(3, 1), round_of(3), {})
    torch.testing.assert_close(step.result.weights, doubles(0.3, 0.6, 0.1))


UNLIKE = torch.tensor([[1.0, 4.0, 20.0, 9.0], [2.0, 2.0, 30.0, 20.0], [3.0, -9.0, 10.0, 50.0]])


def test_contributions_to_a_rule_by_coordinates_are_of_the_values_it_keeps():
    step = Pipeline(coordinate_median)(UNLIKE, round_of(3), {})
    assert step.result.update.tolist() == [2, 2, 20, 20]  # the third is row 0's, the others row 1's
    torch.testing.assert_close(step.contribution, doubles(400, 4 + 4 + 400, 0) / 808)


@pytest.mark.parametrize("overwrite", [False, True])
def test_contributions_to_a_rule_by_coordinates_are_of_clipped_values(overwrite):
    clip = partial(clipping, max_norm=30.0)
    clipped = Pipeline(coordinate_median)(clip(UNLIKE).updates, round_of(3), {})
    guarded = Pipeline(coordinate_median, pre_aggregate=[clip])
    step = guarded(UNLIKE.clone(), round_of(3), {}, overwrite=overwrite)
    torch.testing.assert_close(step.contribution, clipped.contribution)


@pytest.mark.parametrize(
    "rule", [partial(bulyan, n_malicious=1), partial(trimmed_mean, n_malicious=2)]
)
def test_pulls_of_a_rule_by_coordinates_add_up_to_the_square_of_the_update(rule):
    updates = torch.randn(9, 40, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    prior = torch.arange(9).double() / 36
    result = rule(updates, prior=prior)
    torch.testing.assert_close(result.pulls.sum(), result.update.double().square().sum())
    assert (result.pulls[result.weights == 0] == 0).all()


def test_contributions_to_a_rule_by_coordinates_of_shared_rows_go_by_weight():
    step = Pipeline(coordinate_median, pre_aggregate=[bucketing])(
        torch.tensor([[3.0], [1.0], [2.0], [2.0]]), round_of(4), {}
    )
    assert step.result.update.tolist() == [2.0]
    torch.testing.assert_close(step.contribution, doubles(3, 1, 2, 2) / 8)


def test_contributions_are_missing_where_nothing_moves():
    step = Pipeline(mean)(torch.zeros(2, 3), round_of(2), {})
    assert step.contribution.isnan().all()


def test_contributions_are_missing_where_all_pull_against_a_centre_that_is_carried_on():
    pipeline = Pipeline(partial(centred_clipping, radius=1.0))
    memory = {"rule.centre": torch.ones(1) * 1.25}
    step = pipeline(torch.tensor([[-0.5], [-0.5]]), round_of(2), memory)
    assert step.result.update.item() == pytest.approx(0.25)
    assert step.contribution.isnan().all()


def test_a_rejected_giant_leaves_the_others_their_contributions():
    updates = torch.tensor([[3e38], [-3e38], [1.0], [1.1], [1.2], [1.3], [1.4]])
    step = Pipeline(partial(multi_krum, n_malicious=2))(updates, round_of(7), {})
    assert step.contribution[:2].tolist() == [0, 0]
    assert step.contribution.sum().item() == pytest.approx(1)


def test_a_reweighting_may_look_at_the_updates():
    def reweight(updates, memory):
        return Lift((updates == updates.max()).any(dim=1).double(), memory)

    step = Pipeline(mean, reweight)(torch.tensor([[3.0, 4.0], [0.0, -2.0]]), round_of(2), {})
    assert step.result.update.tolist() == [3, 4]


def test_a_reweighting_may_answer_on_the_device_of_the_updates():
    with PretendedDevice():
        step = Pipeline(mean, lambda updates, memory: Lift(updates.double().mean(dim=1), memory))(
            torch.tensor([[0.5, 0.0], [0.25, 1.25]]).to(ELSEWHERE), round_of(2), {}
        )
    assert step.lift.tolist() == [0.25, 0.75]
    assert step.lift.device.type == "cpu"


def test_the_step_of_q_fedavg_is_finite_though_an_update_is_a_giant():
    facts = round_of(2, losses=doubles(1, 1))
    rule = partial(q_fedavg, q=1.0, lipschitz=1.0)
    step = Pipeline(norm_clipping, rule)(torch.tensor([[1e30], [1.0]]), facts, {})
    assert step.result.update.isfinite().all()


def test_what_a_reweighting_remembers_comes_back():
    pipeline = Pipeline(mean, partial(agnostic, step_size=1.0))
    facts = round_of(2, losses=doubles(0, 1))
    first = pipeline(torch.ones(2, 1), facts, {})
    second = pipeline(torch.ones(2, 1), facts, first.memory)
    assert second.result.weights[1] > first.result.weights[1]


def test_clipping_and_the_mean_are_norm_clipping():
    updates = torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0]])
    composed = Pipeline(mean, pre_aggregate=[partial(clipping, max_norm=5.0)])
    result = composed(updates, round_of(3), {}).result
    expected = norm_clipping(updates, max_norm=5.0)
    torch.testing.assert_close(result.update, expected.update)
    torch.testing.assert_close(result.weights, expected.weights)


def test_weights_and_suspicion_of_buckets_are_pulled_back_to_their_members():
    updates = torch.tensor([[0.0], [1.0], [2.0], [90.0], [3.0], [4.0]])
    rule = partial(trimmed_mean, n_malicious=1)
    pipeline = Pipeline(rule, pre_aggregate=[partial(bucketing, size=2)])
    result = pipeline(updates, round_of(6), {}).result
    heard = result.weights > 0
    assert heard.sum() == 2  # of three buckets the middle one
    assert not heard[3]
    torch.testing.assert_close(result.update, updates[heard].mean(dim=0))
    assert (result.suspicion == (~heard).double()).all()


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"pre_aggregate": [bucketing]},
        {"pre_aggregate": [partial(nearest_neighbour_mixing, n_malicious=1)]},
        {"oracle": Oracle({0}, {1}, removing="shielded")},
    ],
)
def test_contributions_that_a_rule_does_not_know_are_known_to_nobody(how):
    def rule(updates):
        return mean(updates)._replace(pulls=torch.full((len(updates),), torch.nan))

    assert Pipeline(rule, **how)(torch.eye(6), round_of(6), {}).contribution.isnan().all()


def test_a_rule_after_bucketing_is_held_to_its_bound_on_buckets():
    rule = partial(trimmed_mean, n_malicious=2)
    pipeline = Pipeline(rule, pre_aggregate=[partial(bucketing, size=2)])
    with pytest.raises(TooFewClientsError, match="n=3 and f=2"):
        pipeline(torch.ones(6, 1), round_of(6), {})


@pytest.mark.parametrize("seed", range(3))
def test_buckets_of_one_keep_the_lift_of_their_clients(seed):
    lift = lift_to(0.1, 0.2, 0.3, 0.4)
    pipeline = Pipeline(mean, lift, pre_aggregate=[partial(bucketing, size=1)])
    step = pipeline(torch.eye(4), round_of(4, rng=np.random.default_rng(seed)), {})
    torch.testing.assert_close(step.result.update, torch.tensor([0.1, 0.2, 0.3, 0.4]))
    torch.testing.assert_close(step.result.weights, doubles(0.1, 0.2, 0.3, 0.4))


def test_bucketing_keeps_the_lift_inside_buckets():
    updates = torch.tensor([[0.0], [4.0], [1.0], [5.0]])
    lift = lift_to(0.4, 0.3, 0.2, 0.1)
    pipeline = Pipeline(mean, lift, pre_aggregate=[bucketing])
    result = pipeline(updates, round_of(4), {}).result
    torch.testing.assert_close(result.update, torch.tensor([1.9]))
    torch.testing.assert_close(result.weights, doubles(0.4, 0.3, 0.2, 0.1))


def test_mixing_spreads_the_weight_of_one_choice_over_its_neighbours():
    updates = torch.tensor([[0.0], [1.0], [4.0], [10.0], [60.0]])
    mix = partial(nearest_neighbour_mixing, n_malicious=1)  # 3.75 four times, 18.75
    pipeline = Pipeline(partial(krum, n_malicious=1), pre_aggregate=[mix])
    result = pipeline(updates, round_of(5), {}).result
    assert result.update.tolist() == [3.75]
    torch.testing.assert_close(result.weights, doubles(0.25, 0.25, 0.25, 0.25, 0))
    assert result.suspicion[0] < result.suspicion[3]  # only 60's neighbourhood lacks 0


def test_pre_aggregations_run_in_their_order_and_are_seen_through_together():
    updates = torch.tensor([[1.0], [8.0], [2.0], [4.0]])
    steps = [partial(clipping, max_norm=4.0), bucketing]  # 1, 4, 2 and 4
    result = Pipeline(mean, pre_aggregate=steps)(updates, round_of(4), {}).result
    torch.testing.assert_close(result.update, torch.tensor([2.75]))
    torch.testing.assert_close(result.weights, doubles(2, 1, 2, 2) / 7)


def test_losses_are_averaged_with_the_rows_they_belong_to():
    facts = round_of(4, losses=doubles(1, 2, 3, 4), confidences=doubles(4, 3, 2, 1) / 4)

    def asks(updates, losses, confidences):
        torch.testing.assert_close(losses.sum(), torch.tensor(5.0).double())
        torch.testing.assert_close(confidences, (5 - losses) / 4)
        return mean(updates)

    steps = [partial(clipping, max_norm=0.5), bucketing]  # losses are not clipped
    Pipeline(asks, pre_aggregate=steps)(torch.ones(4, 1), facts, {})


def test_contributions_are_those_of_the_updates_that_clients_sent():
    updates = torch.tensor([[3.0], [1.0]])
    step = Pipeline(mean, pre_aggregate=[bucketing])(updates, round_of(2), {})
    torch.testing.assert_close(step.contribution, doubles(0.75, 0.25))


def test_a_server_that_owns_the_matrix_clips_in_place_and_reports_the_same():
    updates = torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0], [30.0, 0.0], [0.0, 0.0]])
    steps = [partial(clipping, max_norm=10.0), partial(adaptive_clipping, n_malicious=2)]
    steps += [bucketing, partial(clipping, max_norm=2.0)]
    pipeline = Pipeline(mean, pre_aggregate=steps)
    expected, before = pipeline(updates, round_of(5), {}), updates.clone()
    assert torch.equal(updates, before)
    step = pipeline(updates, round_of(5), {}, overwrite=True)
    assert updates.norm(dim=1).tolist() == [5.0, 1.0, 5.0, 5.0, 0.0]
    assert torch.equal(step.result.update, expected.result.update)
    assert torch.equal(step.result.weights, expected.result.weights)
    torch.testing.assert_close(step.contribution, expected.contribution)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_row_that_was_taken_out_contributes_nothing(overwrite):
    def without_the_first(updates, out):
        kept = torch.diag(torch.tensor([0.0, 1.0, 1.0]))
        rows = updates if out is None else out
        return Mixed(rows.copy_(kept @ rows) if overwrite else kept @ rows, kept)

    step = Pipeline(mean, pre_aggregate=[without_the_first])
    updates = torch.tensor([[9.0], [1.0], [3.0]])
    contribution = step(updates, round_of(3), {}, overwrite=overwrite).contribution
    torch.testing.assert_close(contribution, doubles(0, 0.25, 0.75))


def test_a_rule_that_remembers_clients_cannot_follow_a_pre_aggregation():
    with pytest.raises(TypeError, match="foolsgold remembers clients"):
        Pipeline(foolsgold, pre_aggregate=[bucketing])


def test_what_a_rule_remembers_comes_back_and_stays_apart_from_the_reweightings():
    rule, lift = partial(centred_clipping, radius=3.0), partial(agnostic, step_size=1.0)
    pipeline, facts = Pipeline(rule, lift), round_of(2, losses=doubles(0, 0))
    first = pipeline(torch.tensor([[10.0], [-2.0]]), facts, {})
    assert set(first.memory) == {"rule.centre", "agnostic.clients", "agnostic.values"}
    second = pipeline(torch.tensor([[10.0], [-2.0]]), facts, first.memory)
    assert second.result.update.tolist() == [0.75]
    assert set(second.memory) == set(first.memory)


def test_a_restart_makes_the_rule_forget():
    rule = partial(centred_clipping, radius=3.0)
    lift = partial(jtt, warm_up_rounds=1, n_flagged=1, factor=2.0)
    facts, memory = round_of(2, losses=doubles(0, 1)), {"rule.centre": torch.ones(1)}
    step = Pipeline(rule, lift)(torch.ones(2, 1), facts, memory)
    assert step.restart
    assert "rule.centre" not in step.memory
    assert "jtt.flag.clients" in step.memory


def test_a_rule_may_ask_for_losses_or_for_evaluations():
    assert Pipeline(partial(k_loss, n_malicious=1)).needs_losses
    facts = round_of(2, evaluate=lambda update: (0.25, update.item()))

    def asks(updates, evaluate):
        assert evaluate(updates[0]) == (0.25, 7.0)
        return mean(updates)

    Pipeline(asks)(torch.full((2, 1), 7.0), facts, {})
